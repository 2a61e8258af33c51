"""A whole Sixfold in a namespace of its own, driven as a user would: through the command.

``system`` is one instance in one network namespace that plays the host. Nothing of it is left
when the test ends, fails, or is interrupted.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import unittest.mock
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli.root import cli
from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT, Paths

ROOT = Path(__file__).parents[2]
SIXFOLD = [sys.executable, "-m", "sixfold.cli"]
# These look at nothing of the host's network: where they run makes no difference.
ASKING = (
    *("apply", "audit", "bpf", "ca", "delete", "describe", "diff", "dns", "explain", "flows"),
    *("fqdn", "get", "lb", "lint", "logs", "metrics", "posture", "proxy", "reach", "resolve"),
    *("route", "status", "suggest", "svid", "verify"),
)
_ASKS = threading.Lock()


class CommandError(AssertionError):
    """A command that should have worked did not."""


@dataclass
class System:
    """One instance. ``wait_s`` bounds every wait."""

    paths: Paths
    host: Path  # network namespace that plays the host
    environment: dict[str, str]
    wait_s: float = 60.0
    extra: list[Path] = field(default_factory=list)
    was_up: bool = False

    def sixfold(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``sixfold …``; with ``check``, a non-zero exit fails the test.

        What only asks the agent needs no process of its own: half of a test's time would be
        interpreters that start.
        """
        if arguments[0] not in ASKING:
            return self.typed(*arguments, stdin=stdin, check=check)
        code, out, error = in_this_process(arguments, self.environment, stdin or "")
        done = subprocess.CompletedProcess(arguments, code, out, error)
        return self._checked(done, arguments) if check else done

    def typed(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """The same by a process on the host, as a user has it.

        A first start that says nothing of mTLS is without: the proxy would cost every test.
        """
        if arguments[0] == "up" and not self.was_up:
            self.was_up = True
            arguments += () if "--mtls" in arguments else ("--mtls", "disabled")
        done = self.on_host(*SIXFOLD, *arguments, stdin=stdin)
        return self._checked(done, arguments) if check else done

    def _checked(
        self, done: subprocess.CompletedProcess[str], arguments: Sequence[str]
    ) -> subprocess.CompletedProcess[str]:
        if done.returncode != 0:
            raise CommandError(
                f"sixfold {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
                f"\n--- agent.log\n{self.agent_log()[-3000:]}"
            )
        return done

    def on_host(self, *argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.run_in(self.host, *argv, stdin=stdin)

    def run_in(
        self, namespace: Path | str, *argv: str, stdin: str | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a network namespace (with the host's files)."""
        return subprocess.run(
            ["nsenter", f"--net={namespace}", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout_s,
            check=False,
        )

    def up(self, *arguments: str, manifest: str | None = None) -> None:
        given = ["-f", "-"] if manifest is not None else []
        self.sixfold("up", "--detach", *given, *arguments, stdin=manifest)

    def apply(self, manifest: str, *arguments: str) -> None:
        self.sixfold("apply", "-f", "-", *arguments, stdin=manifest)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.sixfold(*arguments, "-o", "json").stdout)

    def status(self) -> dict[str, Any]:
        return self.json("status")

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """Endpoint status by ``namespace/pod``."""
        items = self.json("get", "endpoints", "-A")["items"]
        return {
            f"{item['metadata']['namespace']}/{item['metadata']['name']}": item["status"]
            for item in items
        }

    def endpoint(self, prefix: str) -> dict[str, Any]:
        """The one endpoint whose ``namespace/pod`` starts so."""
        found = [status for key, status in self.endpoints().items() if key.startswith(prefix)]
        assert len(found) == 1, f"{prefix}: {len(found)} endpoints"
        return found[0]

    def run_in_pod(self, prefix: str, *argv: str, **options: Any) -> Any:
        """Run a program in a pod's network namespace, as a tester with nsenter would."""
        return self.run_in(self.endpoint(prefix)["netns"], *argv, **options)

    def flows(self, *arguments: str) -> list[dict[str, Any]]:
        lines = self.sixfold("flows", *arguments, "-o", "json").stdout.splitlines()
        return [json.loads(line)["flow"] for line in lines]

    def agent_pid(self) -> int:
        return int(self.status()["agent"]["pid"])

    def agent_log(self) -> str:
        path = self.paths.state / "agent.log"
        return path.read_text() if path.exists() else ""

    def eventually(
        self, condition: Callable[[], Any], what: str = "", pause_s: float = 0.05
    ) -> Any:
        """Wait until the condition holds, and return what it returned."""
        deadline = time.monotonic() + self.wait_s
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(pause_s)
        raise CommandError(
            f"not within {self.wait_s:g} s: {what or condition}\n{self.agent_log()[-2000:]}"
        )


def in_this_process(
    arguments: Sequence[str], environment: Mapping[str, str], stdin: str
) -> tuple[int, str, str]:
    """Exit code, and what was written to both outputs; one at a time."""
    out, error = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    code = 0
    with (
        _ASKS,
        unittest.mock.patch.dict(os.environ, environment, clear=True),
        unittest.mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        redirect_stdout(out),
        redirect_stderr(error),
    ):
        try:
            cli(args=list(arguments), prog_name="sixfold")
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    said = []
    for each in (out, error):
        each.flush()
        said.append(each.buffer.getvalue().decode())
    return code, *said


def connects(system: System, prefix: str, address: str, port: int, timeout_s: float = 1.0) -> str:
    """Connect over TCP from a pod: "open", "refused", "timeout", or the errno's name."""
    program = (
        "import errno, socket, sys\n"
        "try:\n"
        f"    socket.create_connection(({address!r}, {port}), {timeout_s}).close()\n"
        "    print('open')\n"
        "except TimeoutError: print('timeout')\n"
        "except ConnectionRefusedError: print('refused')\n"
        "except OSError as error: print(errno.errorcode.get(error.errno, str(error)))\n"
    )
    done = system.run_in_pod(prefix, sys.executable, "-c", program)
    return done.stdout.strip() or done.stderr


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """An instance of one test's own."""
    with running(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def module_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An instance that the tests of a module share: cheaper, when they do not disturb it."""
    with running(tmp_path_factory.mktemp("system")) as made:
        yield made


@contextmanager
def running(directory: Path) -> Iterator[System]:
    """The namespace that plays the host; afterwards ``down``, and nothing may be left."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, BPF, cgroups")
    instance = f"t{uuid.uuid4().hex[:8]}"
    host = NETNS_ROOT / f"{instance}-host"
    paths = _Located(instance, Path(f"/run/{instance}"), directory / "state")
    environment = {
        **os.environ,
        "SIXFOLD_INSTANCE": instance,
        "SIXFOLD_STATE_DIR": str(paths.state),
        "SIXFOLD_RUN_DIR": str(paths.run),
        "NO_COLOR": "1",
    }
    netns.create(host, lambda: None)
    made = System(paths, host, environment)
    made.on_host("ip", "link", "set", "lo", "up")
    try:
        yield made
        made.sixfold("down", "--timeout", "1")
        _assert_nothing_left(instance)
    except BaseException:
        made.on_host(*SIXFOLD, "down", "--timeout", "0")
        raise
    finally:
        for path in (*made.extra, host):
            netns.delete(path)
        shutil.rmtree(paths.run, ignore_errors=True)


class _Located(Paths):
    """Paths of the instance under test; the test's own environment has none of its variables."""

    __slots__ = ("_run", "_state")

    def __init__(self, instance: str, run: Path, state: Path) -> None:
        super().__init__(instance)
        object.__setattr__(self, "_run", run)
        object.__setattr__(self, "_state", state)

    @property
    def run(self) -> Path:
        return self._run

    @property
    def state(self) -> Path:
        return self._state


def _assert_nothing_left(instance: str) -> None:
    left = list(NETNS_ROOT.glob(f"{instance}.*"))
    paths = Paths(instance)
    left += [
        path for path in (paths.bpffs, paths.cgroup, Path(f"/run/{instance}")) if path.exists()
    ]
    assert left == [], f"down left behind: {left}"
