"""The kernel takes, drops and counts TCP between pods as the plan of modes says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from crafted import B4, REDIRECT, SHOT, TCP, UDP, WORLD4, Kernel, frame4, frame6, tcp, udp

from sixfold.host.datapath import KernelDatapath
from sixfold.mesh.modes import Decided, PodModes, transport
from sixfold.model.endpoint import EndpointId
from sixfold.model.mesh import TUNNEL_PORT, Mode, PortMode
from sixfold.model.reason import DropReason

pytestmark = pytest.mark.root

PORTS = (80, 81, 65535, TUNNEL_PORT)


@pytest.fixture
def kernel(datapath: KernelDatapath) -> Kernel:
    return Kernel(datapath)


def place(kernel: Kernel, every: Mode, ports: Mapping[int, Mode]) -> dict[str, PodModes]:
    """Both pods are in the mesh; a's modes are of no interest."""
    lines = {
        PortMode(EndpointId(1), 0, Mode.STRICT, kernel.a),
        PortMode(EndpointId(2), 0, every, kernel.b),
        *(PortMode(EndpointId(2), port, mode, kernel.b) for port, mode in ports.items()),
    }
    kernel.datapath.apply(replace(kernel.desired, modes=frozenset(lines)))
    b = PodModes(Decided(every, ""), {port: Decided(mode, "") for port, mode in ports.items()})
    return {"a": PodModes(Decided(Mode.STRICT, ""), {}), "b": b}


@pytest.mark.parametrize("frame", [frame4, frame6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("every", Mode)
@pytest.mark.parametrize("own", Mode)
def test_plaintext_passes_where_the_plan_says_so(
    kernel: Kernel, frame: object, every: Mode, own: Mode
) -> None:
    assert callable(frame)
    modes = place(kernel, every, {81: own})
    for port in PORTS:
        expected = transport(modes, "a", "b", port, captured=False)
        assert not expected.mtls
        verdict = kernel.send(frame(tcp(source=2000, destination=port)))
        assert verdict == (SHOT if expected.dropped else REDIRECT), port
        (event,) = kernel.events()
        wanted = DropReason.NONE
        if expected.dropped:
            wanted = DropReason.TUNNEL_PORT if port == TUNNEL_PORT else DropReason.MTLS_REQUIRED
        assert (event.reason, event.destination_port) == (wanted, port)
        plaintext = {one.port for one, *_ in kernel.datapath.plaintexts()}
        mode = modes["b"].of(port).mode
        assert (port in plaintext) == (mode == Mode.PERMISSIVE and not expected.dropped)
        kernel.datapath.maps["plaintexts"].delete(
            [key for key, _ in kernel.datapath.maps["plaintexts"].items()]
        )


def test_what_is_not_tcp_or_not_of_a_pod_has_no_mode(kernel: Kernel) -> None:
    place(kernel, Mode.STRICT, {})
    assert kernel.send(frame4(udp(b"x"), UDP)) == REDIRECT
    world = frame4(tcp(), TCP, WORLD4, B4)
    kernel.receive(world, kernel.b)
    assert DropReason.MTLS_REQUIRED not in {event.reason for event in kernel.events()}
