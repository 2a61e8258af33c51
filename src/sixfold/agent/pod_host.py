"""What the pod runner needs of a host: ``host`` has the real ones, ``host.fake`` the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

from sixfold.host.containers import Container, ContainerSpec, ExitStatus
from sixfold.host.network import Attachment
from sixfold.host.probes import Probed, ProbeResult
from sixfold.model.workload import Probe

Admit = Callable[[str, Attachment], Awaitable[None]]


class PodNetwork(Protocol):
    """``host.network.HostNetwork``, as far as pods go."""

    def attach(
        self, name: str, ipv4: IPv4Address | None, ipv6: IPv6Address | None
    ) -> Attachment: ...
    def activate(self, ifindex: int) -> None: ...
    def detach(self, name: str) -> None: ...
    def observe(self) -> Mapping[str, Attachment]: ...


class ContainerHost(Protocol):
    """``host.containers.Containers``, as far as pods go."""

    async def start(self, spec: ContainerSpec) -> Container: ...
    def observe(self) -> list[Container]: ...
    async def wait(self, container: Container) -> ExitStatus: ...
    async def kill(self, container: Container) -> ExitStatus: ...
    async def stop(self, container: Container, grace_s: float) -> ExitStatus: ...
    async def remove(self, pod_uid: str) -> None: ...
    def log_directory(self, pod_key: str, pod_uid: str) -> Path: ...


class Prober(Protocol):
    """The module ``host.probes``: asks once, within the probe's own timeout."""

    async def run(self, probe: Probe, probed: Probed) -> ProbeResult: ...
