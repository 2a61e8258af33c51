"""A container: what it is to be, what it is, how it ended, as the shim's files tell it.

Values and their reading from disk; ``containers`` starts and ends them. ``shim/shim.c`` lists
the files of the state directory.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sixfold.host.process import Process


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One attempt to run one container; all of it is fixed before it starts."""

    pod_key: str  # "namespace/name"
    pod_uid: str
    name: str
    attempt: int  # 0, 1, …: one more at each restart
    argv: tuple[str, ...]
    netns: Path
    resolv_conf: Path
    hosts: Path
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    no_new_privs: bool = False
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container ended; times in seconds since the epoch.

    code       exit code, 128 + signal when a signal ended it
    started_at None when the command never ran
    reason     "Completed", "Error", "StartError" or "ContainerStatusUnknown"
    """

    code: int
    signal: int
    started_at: float | None
    finished_at: float
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """One attempt as it is on this host, alive or not."""

    spec: ContainerSpec
    state: Path
    log: Path
    cgroup: Path
    shim: Process
    process: Process  # the first process of the tree
    started_at: float | None

    @property
    def key(self) -> str:
        """``pod uid/container``: one at a time."""
        return f"{self.spec.pod_uid}/{self.spec.name}"

    @property
    def running(self) -> bool:
        return self.shim.alive and not (self.state / "status").exists()


def write_spec(state: Path, spec: ContainerSpec) -> None:
    """Leave the spec for agents after us: whole, or not at all."""
    aside = state / ".spec.json"
    aside.write_bytes(msgspec.json.encode(spec, enc_hook=str))
    aside.rename(state / "spec.json")


def read_spec(state: Path) -> ContainerSpec | None:
    """The spec of an attempt; None when it was never written down."""
    try:
        encoded = (state / "spec.json").read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(encoded, type=ContainerSpec, dec_hook=_decode_path)


def user_arguments(spec: ContainerSpec) -> list[str]:
    """The shim's options for who runs the command, and where."""
    arguments = [f"--workdir={spec.workdir or '/'}", f"--uid={spec.uid}", f"--gid={spec.gid}"]
    if spec.groups:
        arguments.append(f"--groups={','.join(map(str, spec.groups))}")
    if spec.no_new_privs:
        arguments.append("--no-new-privs")
    return arguments


def environment(spec: ContainerSpec) -> dict[str, str]:
    """The spec's environment; HOME from the password file, as container runtimes do."""
    if "HOME" in spec.env:
        return dict(spec.env)
    try:
        home = pwd.getpwuid(spec.uid).pw_dir
    except KeyError:
        home = "/"
    return {**spec.env, "HOME": home}


def _decode_path(kind: type, value: Any) -> Any:
    assert kind is Path, f"{kind}: unexpected type in spec.json"
    return Path(value)


def read_started(state: Path) -> float | None:
    try:
        return float((state / "started").read_text())
    except FileNotFoundError:
        return None


def read_status(container: Container) -> ExitStatus | None:
    """The shim's last word: "CODE SIGNAL ERRNO SECONDS MESSAGE"."""
    try:
        line = (container.state / "status").read_text(errors="replace").strip("\n")
    except FileNotFoundError:
        return None
    code, signal, error, finished, message = line.split(" ", 4)
    started = read_started(container.state)
    reason = "Completed" if code == "0" and signal == "0" else "Error"
    if message:
        reason, message = "StartError", f"{message}: {os.strerror(int(error))}"
    return ExitStatus(
        code=128 + int(signal) if int(signal) else int(code),
        signal=int(signal),
        started_at=started,
        finished_at=float(finished),
        reason=reason,
        message=message,
    )
