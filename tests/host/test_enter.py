"""Entering a container in the foreground, as ``sixfold exec`` does."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from sixfold.host.enter import Target

pytestmark = pytest.mark.root

ENTER = """
import sys, msgspec
from sixfold.host.enter import Target, enter
enter(msgspec.json.decode(sys.argv[1], type=Target), sys.argv[3:], tty=sys.argv[2] == "tty")
"""


@asynccontextmanager
async def running(containers, spec):
    container = await containers.start(spec)
    yield container
    await containers.kill(container)


def command(target: Target, *argv: str, tty: bool = False) -> list[str]:
    encoded = msgspec.json.encode(target).decode()
    return [sys.executable, "-c", ENTER, encoded, "tty" if tty else "no", *argv]


def entered(containers, make_spec, *argv: str, stdin: bytes = b"", **fields: object):
    """The finished process of a command entered into a fresh container."""

    async def main():
        async with running(containers, make_spec("sleep", "300", **fields)) as container:
            line = command(Target.of(container), *argv)
            return subprocess.run(line, input=stdin, capture_output=True, check=False, timeout=20)

    return asyncio.run(main())


def test_the_exit_code_is_the_commands_own(containers, make_spec):
    assert entered(containers, make_spec, "sh", "-c", "exit 42").returncode == 42


def test_a_signal_ends_it_as_it_ends_the_command(containers, make_spec):
    assert entered(containers, make_spec, "sh", "-c", "kill -TERM $$").returncode == -15


def test_standard_streams_are_the_callers(containers, make_spec):
    done = entered(containers, make_spec, "sh", "-c", "cat; echo oops >&2", stdin=b"in\n")
    assert (done.stdout, done.stderr) == (b"in\n", b"oops\n")


def test_the_command_finds_the_containers_surroundings(containers, make_spec):
    script = (
        "id -u; id -G; hostname; pwd; echo $PATH $HOME; cat /etc/resolv.conf; ls /sys/class/net"
    )
    done = entered(
        containers,
        make_spec,
        "sh",
        "-c",
        script,
        uid=1234,
        gid=2345,
        groups=(7,),
        hostname="web-0",
        workdir="/usr",
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere"},
    )
    expected = "1234 2345 7 web-0 /usr /usr/bin:/bin /nowhere nameserver 192.0.2.53 lo"
    assert " ".join(done.stdout.decode().split()) == expected


def test_root_enters_without_the_capabilities_of_the_caller(containers, make_spec):
    done = entered(containers, make_spec, "nsenter", "--net=/proc/1/ns/net", "true")
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        pytest.param(["no-such"], 127, b"exec no-such: No such file or directory\n", id="none"),
        pytest.param(["/etc/hosts"], 126, b"exec /etc/hosts: Permission denied\n", id="no program"),
    ],
)
def test_a_command_that_cannot_run_says_why(containers, make_spec, argv, code, message):
    done = entered(containers, make_spec, *argv)
    assert (done.returncode, done.stderr) == (code, message)


def screen(terminal: int) -> str:
    """All that is written to it, until nobody has its other end any more."""
    seen = b""
    with os.fdopen(terminal, "rb", buffering=0) as opened, suppress(OSError):  # EIO
        while some := opened.read(4096):
            seen += some
    return seen.decode()


def test_a_terminal_is_passed_on(containers, make_spec):
    async def main():
        async with running(containers, make_spec("sleep", "300")) as container:
            line = command(
                Target.of(container),
                "sh",
                "-c",
                "test -t 0 && echo a terminal; echo $TERM; stty size",
                tty=True,
            )
            outer, inner = pty.openpty()
            process = subprocess.Popen(
                line,
                stdin=inner,
                stdout=inner,
                stderr=inner,
                env={**os.environ, "TERM": "vt100"},
            )
            os.close(inner)
            seen = await asyncio.to_thread(screen, outer)
            await asyncio.to_thread(process.wait, 20)
            return seen

    lines = asyncio.run(main()).split("\r\n")
    assert lines[0] == "a terminal"
    assert lines[1] == "vt100"


def test_what_was_entered_ends_with_the_container(containers, make_spec):
    async def main():
        async with running(containers, make_spec("sleep", "300")) as container:
            line = command(Target.of(container), "sh", "-c", "echo in; sleep 300")
            process = subprocess.Popen(line, stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"in\n"
        with process:
            return await asyncio.to_thread(process.wait, 10)

    assert asyncio.run(main()) == -signal.SIGKILL


def test_a_container_that_ended_cannot_be_entered(containers, make_spec):
    async def main():
        container = await containers.start(make_spec("true"))
        await containers.wait(container)
        return subprocess.run(
            command(Target.of(container), "true"), capture_output=True, check=False
        )

    done = asyncio.run(main())
    assert done.returncode == 1
    assert b"it is gone" in done.stderr
