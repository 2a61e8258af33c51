"""The datapath on real packets: two pods, a host and a world in namespaces of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from tests.host.lab import (
    A_TO_B,
    ANY,
    CLOSED,
    DROP,
    HOST4,
    HOST6,
    ICMP,
    SERVICE4,
    SERVICE6,
    SILENCE_S,
    TCP,
    UDP,
    VERDICT,
    WAIT_S,
    A,
    B,
    Lab,
    Pod,
    allow,
    family_of,
    ip_batch,
    table,
)

from sixfold.errors import HostError
from sixfold.host import layout
from sixfold.host.datapath import KernelDatapath
from sixfold.host.programs import OBJECTS
from sixfold.model.config import HOST_MAC, POD_MAC
from sixfold.model.datapath import (
    DENY,
    EGRESS,
    INGRESS,
    Backend,
    Frontend,
    FrontendEntry,
    PolicyEntry,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import HOST, Identity
from sixfold.model.reason import DropReason

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        not OBJECTS.joinpath("endpoint.bpf.o").exists(), reason="datapath not built"
    ),
]


def exchange(client: socket.socket, server: socket.socket) -> None:
    """One byte there and back over a fresh connection; earlier ones that nobody took are closed."""
    accepted, peer = server.accept()
    while peer[1] != client.getsockname()[1]:
        accepted.close()
        accepted, peer = server.accept()
    with accepted:
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"
        accepted.sendall(b"y")
        assert client.recv(1) == b"y"


families = pytest.mark.parametrize(
    ("a", "b"), [pytest.param(A.ipv4, B.ipv4, id="IPv4"), pytest.param(A.ipv6, B.ipv6, id="IPv6")]
)


@families
def test_an_allowed_connection_passes_and_names_both_rules(lab: Lab, a: object, b: object) -> None:
    lab.datapath.apply(lab.desired())
    server = lab.listen("b", b)
    exchange(lab.connect("a", b), server)
    (event,) = lab.events()
    assert (event.type, event.rule) == (VERDICT, (22, 21))
    assert (event.source, event.destination, event.destination_port) == (a, b, 80)
    assert (event.source_identity, event.destination_identity) == (A.identity, B.identity)


def test_before_the_first_apply_nothing_passes(lab: Lab) -> None:
    lab.listen("b", B.ipv4)
    assert lab.hears_nothing("a", B.ipv4)
    assert set(lab.drops()) == {(DropReason.NO_ENDPOINT, 0)}


@families
@pytest.mark.parametrize("closed", [pytest.param(A, id="egress"), pytest.param(B, id="ingress")])
def test_either_side_may_deny_and_its_default_is_named(
    lab: Lab, a: object, b: object, closed: Pod
) -> None:
    lab.datapath.apply(lab.desired({**A_TO_B, closed.id: CLOSED}))
    lab.listen("b", b)
    assert lab.hears_nothing("a", b)
    assert lab.drops()[0] == (DropReason.POLICY_DENIED, 11 if closed is A else 10)


def test_an_explicit_deny_beats_an_allow_and_is_named(lab: Lab) -> None:
    deny = PolicyEntry(EGRESS, Identity(0), ANY, 0, 0, DENY, 66)
    lab.datapath.apply(lab.desired({**A_TO_B, A.id: table(*A_TO_B[A.id].entries, deny)}))
    assert lab.hears_nothing("a", B.ipv4)
    assert lab.drops()[0] == (DropReason.POLICY_DENY, 66)


def test_a_port_range_allows_its_ports_only(lab: Lab) -> None:
    block = PolicyEntry(INGRESS, A.identity, TCP, 80, 14, True, 5)  # 80 to 83
    lab.datapath.apply(lab.desired({**A_TO_B, B.id: table(block)}))
    for port in (80, 83):
        server = lab.listen("b", B.ipv4, port)
        exchange(lab.connect("a", B.ipv4, port), server)
    lab.listen("b", B.ipv4, 84)
    assert lab.hears_nothing("a", B.ipv4, 84)


@families
def test_a_revoked_rule_cuts_an_open_connection(lab: Lab, a: object, b: object) -> None:
    lab.datapath.apply(lab.desired())
    server = lab.listen("b", b)
    client = lab.connect("a", b)
    exchange(client, server)
    accepted = lab.connect("a", b)
    other, _ = server.accept()
    lab.sockets.append(other)
    lab.events()
    lab.datapath.apply(lab.desired({**A_TO_B, B.id: CLOSED}))
    accepted.sendall(b"x")
    other.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        other.recv(1)
    assert lab.drops()[0] == (DropReason.POLICY_DENIED, 10)


def test_a_change_that_still_allows_cuts_nothing(lab: Lab) -> None:
    lab.datapath.apply(lab.desired())
    server = lab.listen("b", B.ipv4)
    client = lab.connect("a", B.ipv4)
    accepted, _ = server.accept()
    lab.sockets.append(accepted)
    for rule in range(30, 40):
        lab.datapath.apply(
            lab.desired({**A_TO_B, B.id: table(allow(INGRESS, A.identity, rule=rule))})
        )
        accepted.sendall(b"y")  # the reply is judged in the direction of the request
        assert client.recv(1) == b"y"
    assert not [event for event in lab.events() if event.type == DROP]
    (connection,) = lab.datapath.conntrack()
    assert (connection.source, connection.destination_port) == (A.ipv4, 80)
    assert connection.rule == (39, 21)
    assert connection.packets[0] >= 2


def test_replies_need_no_rule_of_their_own_and_requests_back_do(lab: Lab) -> None:
    lab.datapath.apply(lab.desired())
    server = lab.listen("b", B.ipv4)
    exchange(lab.connect("a", B.ipv4), server)
    lab.listen("a", A.ipv4)
    assert lab.hears_nothing("b", A.ipv4)


def test_the_host_and_a_pod_talk_as_policy_says(lab: Lab) -> None:
    both = table(allow(INGRESS, HOST, rule=7), allow(EGRESS, HOST, TCP, 8080, rule=8))
    lab.datapath.apply(lab.desired({A.id: both, B.id: CLOSED}))
    for address, own in ((A.ipv4, HOST4), (A.ipv6, HOST6)):
        server = lab.listen("a", address)
        probe = lab.socket("host", family_of(address))
        probe.bind((str(own), 0))
        probe.connect((str(address), 80))
        exchange(probe, server)
    server = lab.listen("host", HOST4, 8080)
    exchange(lab.connect("a", HOST4, 8080), server)
    assert lab.hears_nothing("b", HOST4, 8080)


def service(protocol: int, *backends: Backend, port: int = 443) -> dict[Frontend, FrontendEntry]:
    return {
        entry: value
        for address in (SERVICE4, SERVICE6)
        for entry, value in (
            (Frontend.at(address, 0, ANY), FrontendEntry(9, ())),
            (
                Frontend.at(address, port, protocol),
                FrontendEntry(
                    9, tuple(b for b in backends if b.address.version == address.version)
                ),
            ),
        )
    }


BACKENDS = (Backend.at(B.ipv4, 80), Backend.at(B.ipv6, 80))


@pytest.mark.parametrize(
    ("dialled", "backend"),
    [
        pytest.param(SERVICE4, B.ipv4, id="IPv4"),
        pytest.param(SERVICE6, B.ipv6, id="IPv6"),
        pytest.param(IPv6Address("::ffff:198.51.100.10"), B.ipv4, id="mapped"),
    ],
)
def test_a_service_leads_to_its_backend_and_keeps_its_name(
    lab: Lab, dialled: object, backend: object
) -> None:
    lab.datapath.apply(lab.desired(frontends=service(TCP, *BACKENDS)))
    server = lab.listen("b", backend)
    client = lab.connect("a", dialled, 443)
    exchange(client, server)
    assert ip_address(client.getpeername()[0]) == dialled
    assert client.getpeername()[1] == 443
    event = lab.events()[0]
    assert (event.destination, event.destination_port) == (backend, 80)
    assert (event.service, event.service_port) == (9, 443)


def test_a_direct_connection_is_not_taken_for_a_service(lab: Lab) -> None:
    lab.datapath.apply(lab.desired(frontends=service(TCP, *BACKENDS)))
    server = lab.listen("b", B.ipv4)
    exchange(lab.connect("a", SERVICE4, 443), server)
    exchange(lab.connect("a", B.ipv4, 80), server)
    assert [event.service for event in lab.events()] == [9, 0]


@pytest.mark.parametrize("address", [SERVICE4, SERVICE6])
def test_a_service_without_backends_or_port_refuses_at_once(lab: Lab, address: object) -> None:
    lab.datapath.apply(lab.desired(frontends=service(TCP)))
    for port in (443, 444):
        with pytest.raises(ConnectionRefusedError):
            lab.connect("a", address, port)


@pytest.mark.parametrize("pod", ["a", "host"])
@pytest.mark.parametrize("address", ["198.51.100.95", "2001:db8:6::ffff", "::ffff:198.51.100.64"])
def test_an_address_of_the_service_networks_that_nobody_has_refuses_at_once(
    lab: Lab, pod: str, address: str
) -> None:
    lab.datapath.apply(lab.desired(frontends=service(TCP, *BACKENDS)))
    with pytest.raises(ConnectionRefusedError):
        lab.connect(pod, ip_address(address), 443)
    client = lab.socket(pod, family_of(ip_address(address)), socket.SOCK_DGRAM)
    with pytest.raises(ConnectionRefusedError):
        client.sendto(b"q", (address, 53))


def test_datagrams_to_a_service_without_backends_are_refused(lab: Lab) -> None:
    lab.datapath.apply(lab.desired(frontends=service(UDP, port=53)))
    for address in (SERVICE4, SERVICE6):
        client = lab.socket("a", family_of(address), socket.SOCK_DGRAM)
        with pytest.raises(ConnectionRefusedError):
            client.sendto(b"q", (str(address), 53))


def test_the_host_dials_services_too(lab: Lab) -> None:
    policies = {A.id: CLOSED, B.id: table(allow(INGRESS, HOST))}
    lab.datapath.apply(lab.desired(policies, service(TCP, *BACKENDS)))
    server = lab.listen("b", B.ipv4)
    client = lab.socket("host", socket.AF_INET)
    client.bind((str(HOST4), 0))
    client.connect((str(SERVICE4), 443))
    exchange(client, server)
    (event,) = lab.events()
    assert (event.direction, event.service, event.service_port) == (INGRESS, 9, 443)


@pytest.mark.parametrize(
    ("dialled", "backend"),
    [
        pytest.param(SERVICE4, B.ipv4, id="IPv4"),
        pytest.param(SERVICE6, B.ipv6, id="IPv6"),
        pytest.param(IPv6Address("::ffff:198.51.100.10"), B.ipv4, id="mapped"),
    ],
)
@pytest.mark.parametrize("connected", [True, False])
def test_datagrams_come_back_from_the_service(
    lab: Lab, dialled: object, backend: object, connected: bool
) -> None:
    lab.datapath.apply(lab.desired(frontends=service(UDP, *BACKENDS, port=53)))
    server = lab.datagram("b", backend, 80)
    client = lab.socket("a", family_of(dialled), socket.SOCK_DGRAM)
    if connected:
        client.connect((str(dialled), 53))
        client.send(b"q")
    else:
        client.sendto(b"q", (str(dialled), 53))
    question, sender = server.recvfrom(10)
    server.sendto(b"a", sender)
    answer, source = client.recvfrom(10)
    assert (question, answer) == (b"q", b"a")
    assert (ip_address(source[0]), source[1]) == (dialled, 53)
    (event,) = lab.events()
    assert (event.service, event.service_port) == (9, 53)


def test_unconnected_sends_of_one_socket_stay_with_one_backend(lab: Lab) -> None:
    many = [Backend.at(B.ipv4, 9000 + i) for i in range(16)]
    lab.datapath.apply(lab.desired(frontends=service(UDP, *many, port=53)))
    client = lab.socket("a", socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(20):
        client.sendto(b"q", (str(SERVICE4), 53))
    used = {event.destination_port for event in lab.events()}
    assert len(used) == 1


def test_connects_spread_over_all_backends(lab: Lab) -> None:
    many = [Backend.at(B.ipv4, 9000 + i) for i in range(4)]
    lab.datapath.apply(lab.desired(frontends=service(TCP, *many)))
    for _ in range(60):
        with suppress(ConnectionRefusedError):
            lab.connect("a", SERVICE4, 443)
    assert {event.destination_port for event in lab.events() if not event.is_reply} == {
        9000,
        9001,
        9002,
        9003,
    }


def test_sockets_of_other_namespaces_are_left_alone(lab: Lab) -> None:
    lab.datapath.apply(replace(lab.desired(frontends=service(TCP, *BACKENDS)), host_netns_cookie=0))
    before = lab.datapath.statistics().get("translated")
    with pytest.raises(OSError, match="unreachable"):
        lab.connect("host", SERVICE4, 443)
    assert lab.datapath.statistics().get("translated") == before


@families
def test_fragments_share_the_verdict_of_their_first(lab: Lab, a: object, b: object) -> None:
    lab.datapath.apply(lab.desired())
    server = lab.datagram("b", b, 80)
    client = lab.datagram("a", a)
    client.sendto(b"z" * 8000, (str(b), 80))
    assert len(server.recv(9000)) == 8000
    lab.datapath.apply(lab.desired({**A_TO_B, B.id: CLOSED}))
    client.sendto(b"z" * 8000, (str(b), 80))
    server.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        server.recv(9000)


def test_an_icmp_error_about_a_connection_reaches_its_originator(lab: Lab) -> None:
    lab.datapath.apply(lab.desired())
    client = lab.datagram("a", A.ipv4)
    client.connect((str(B.ipv4), 4444))  # nobody listens there
    client.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        client.recv(1)


@families
def test_echo_passes_with_a_rule_for_icmp_only(lab: Lab, a: object, b: object) -> None:
    protocol = ICMP if isinstance(b, IPv4Address) else 58
    lab.datapath.apply(
        lab.desired(
            {
                A.id: table(allow(EGRESS, B.identity, protocol)),
                B.id: table(allow(INGRESS, A.identity, protocol)),
            }
        )
    )
    with lab.inside("a"):
        client = socket.socket(family_of(b), socket.SOCK_RAW, protocol)
    client.settimeout(WAIT_S)
    lab.sockets.append(client)
    request = struct.pack("!BBHHH", 8 if protocol == ICMP else 128, 0, 0, 77, 1)
    if protocol == ICMP:
        request = struct.pack("!BBHHH", 8, 0, 0xFFFF - 0x0800 - 77 - 1, 77, 1)
    client.sendto(request, (str(b), 0))
    answers = iter(lambda: client.recv(100)[20 if protocol == ICMP else 0 :], b"")
    answer = next(each for each in answers if each[0] in (0, 129))  # not neighbour discovery
    assert struct.unpack("!HH", answer[4:8]) == (77, 1)
    assert [(event.type, event.protocol) for event in lab.events()] == [(VERDICT, protocol)]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(b"\x08\0" + b"\x45" + bytes(10), DropReason.INVALID_PACKET, id="IPv4"),
        pytest.param(b"\x86\xdd" + b"\x60" + bytes(30), DropReason.INVALID_PACKET, id="IPv6"),
        pytest.param(b"\x81\0\0\x05\x08\0\x45" + bytes(60), DropReason.UNSUPPORTED_L2, id="VLAN"),
        pytest.param(b"\x88\xcc" + bytes(50), DropReason.UNSUPPORTED_L2, id="LLDP"),
    ],
)
def test_frames_that_are_cut_or_foreign_are_dropped(
    lab: Lab, frame: bytes, reason: DropReason
) -> None:
    lab.datapath.apply(lab.desired())
    with lab.inside("a"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("eth0", 0))
    lab.sockets.append(wire)
    macs = bytes.fromhex((HOST_MAC + POD_MAC).replace(":", ""))
    wire.send(macs + frame)
    assert lab.drops() == [(reason, 0)]


def test_a_killed_agent_leaves_everything_in_force_and_is_adopted(lab: Lab) -> None:
    lab.datapath.apply(lab.desired(frontends=service(TCP, *BACKENDS)))
    server = lab.listen("b", B.ipv4)
    client = lab.connect("a", SERVICE4, 443)
    lab.datapath.close()  # as kill -9 does: nothing is said, descriptors go
    exchange(client, server)
    exchange(lab.connect("a", SERVICE4, 443), server)
    lab.datapath = KernelDatapath.open(lab.instance)
    desired = lab.desired(frontends=service(TCP, *BACKENDS))
    assert lab.datapath.apply(desired) == 0
    assert lab.datapath.repair(desired) == []
    assert len(lab.events()) == 2  # those of the time between, too


def drain(server: socket.socket) -> None:
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
    server.settimeout(WAIT_S)


@pytest.mark.parametrize(("a", "host"), [(A.ipv4, HOST4), (A.ipv6, HOST6)], ids=["IPv4", "IPv6"])
def test_a_pod_that_lost_its_programs_is_closed_both_ways_until_they_are_back(
    lab: Lab, a: object, host: object
) -> None:
    """Somebody empties the BPF file system while no agent runs."""
    policies = {A.id: table(allow(EGRESS, HOST), allow(INGRESS, HOST))}
    lab.datapath.apply(lab.desired(policies))
    at_host, at_pod = lab.listen("host", host), lab.listen("a", a)
    exchange(lab.connect("a", host), at_host)
    exchange(lab.connect("host", a), at_pod)
    open_client = lab.connect("a", host)
    accepted, _ = at_host.accept()
    lab.sockets.append(accepted)
    accepted.settimeout(SILENCE_S)
    lab.datapath.close()
    for path in (lab.datapath.root / "links").glob("*_endpoint_*"):
        path.unlink()
    for client, address, server in (("a", host, at_host), ("host", a, at_pod)):

        def closed(client: str = client, to: object = address, at: socket.socket = server) -> bool:
            """The kernel lets go of a link a moment after its last holder: some come through."""
            silent = lab.hears_nothing(client, to)
            drain(at)
            return silent

        lab.eventually(closed)
    open_client.sendall(b"x")
    with pytest.raises(TimeoutError):
        accepted.recv(1)
    lab.datapath = KernelDatapath.open(lab.instance)
    lab.datapath.apply(lab.desired(policies))
    lab.datapath.repair(lab.desired(policies))
    exchange(lab.connect("a", host), at_host)
    exchange(lab.connect("host", a), at_pod)


def test_another_version_of_the_programs_takes_over_under_traffic(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.datapath.apply(lab.desired())
    server = lab.listen("b", B.ipv4)
    client = lab.connect("a", B.ipv4)
    accepted, _ = server.accept()
    lab.sockets.append(accepted)
    lab.datapath.close()
    monkeypatch.setattr("sixfold.host.programs.objects_hash", lambda: "other")
    lab.datapath = KernelDatapath.open(lab.instance)
    assert [path.name for path in (lab.datapath.root / "programs").iterdir()] == ["other"]
    client.sendall(b"x")
    assert accepted.recv(1) == b"x"
    assert lab.datapath.repair(lab.desired()) == []


def test_another_layout_waits_until_no_accelerated_connection_is_open(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.datapath.apply(lab.desired())
    lab.listen("b", B.ipv4)
    client = lab.connect("a", B.ipv4)
    sockets = lab.datapath.maps["accelerated"]
    key = bytes(sockets.definition.key_size)
    sockets.update({key: client.fileno().to_bytes(8, sys.byteorder)})
    lab.datapath.close()
    monkeypatch.setattr("sixfold.host.programs.objects_hash", lambda: "other")
    monkeypatch.setattr(
        "sixfold.host.programs._is_unlike", lambda path, _: path.exists() and path.name == "pairs"
    )
    with pytest.raises(HostError, match="another layout of pairs"):
        KernelDatapath.open(lab.instance)
    client.close()
    lab.datapath = KernelDatapath.open(lab.instance)
    assert [path.name for path in (lab.datapath.root / "programs").iterdir()] == ["other"]


def test_repair_says_and_mends_what_somebody_broke(lab: Lab) -> None:
    desired = lab.desired(frontends=service(TCP, *BACKENDS))
    lab.datapath.apply(desired)
    maps, ifindex = lab.datapath.maps, next(iter(lab.endpoints))
    for name in ("policy", "frontends", "endpoints"):
        maps[name].delete([key for key, _ in maps[name].items()][:1])
    maps["service_networks"].update({bytes(4): bytes(32)})
    maps["ipcache"].update({b"\x80\0\0\0" + bytes(15) + b"\x09": bytes(8)})
    lab.datapath.detach(ifindex)
    found = lab.datapath.repair(desired)
    assert len(found) >= 7
    for part in ("links[", "policies[", "frontends[", "endpoints[", "ipcache["):
        assert any(line.startswith(part) for line in found), part
    assert lab.datapath.repair(desired) == []


def test_a_state_that_does_not_fit_changes_nothing(lab: Lab) -> None:
    lab.datapath.apply(lab.desired())
    before = lab.datapath.read()
    too_many = {Frontend.at(IPv4Address(i), 80, TCP): FrontendEntry(1, ()) for i in range(131073)}
    with pytest.raises(HostError, match="put frontends: map is full: 131073"):
        lab.datapath.apply(lab.desired(A_TO_B | {A.id: CLOSED}, too_many))
    assert lab.datapath.read() == before
    server = lab.listen("b", B.ipv4)
    exchange(lab.connect("a", B.ipv4), server)
    assert lab.datapath.apply(lab.desired()) == 0


@pytest.mark.parametrize("name", ["policy", "policy_tables"])
def test_policies_that_do_not_fit_change_nothing(
    lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = lab.datapath.maps[name]
    lab.datapath.apply(lab.desired())
    before = lab.datapath.read()
    there = len(list(full.items()))
    monkeypatch.setattr(full, "definition", full.definition._replace(max_entries=there))
    lab.datapath._shadow = None  # it knows the map as it was
    more = table(*(allow(EGRESS, B.identity, TCP, n) for n in range(1, 9)))
    changed = {**A_TO_B, A.id: more, EndpointId(99): table(allow(EGRESS, B.identity, TCP, 9))}
    with pytest.raises(HostError, match=f"put {name}: map is full: .* {there} fit"):
        lab.datapath.apply(lab.desired(changed))
    assert lab.datapath.read() == before
    server = lab.listen("b", B.ipv4)
    exchange(lab.connect("a", B.ipv4), server)


def test_a_map_full_of_what_nobody_owns_makes_room(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a change leaves it that was killed amid its writes."""
    lab.datapath.apply(lab.desired())
    policy = lab.datapath.maps["policy"]
    (section, *_) = table(*(allow(INGRESS, Identity(n)) for n in range(1000, 1100))).sections
    left = list(layout.pack_section(77, section))
    policy.update(dict(left))
    there = len(list(policy.items()))
    monkeypatch.setattr(policy, "definition", policy.definition._replace(max_entries=there))
    lab.datapath._shadow = None
    changed = {**A_TO_B, A.id: table(*(allow(EGRESS, B.identity, TCP, n) for n in range(1, 9)))}
    lab.datapath.apply(lab.desired(changed))
    assert lab.datapath.read().policies == changed
    assert not {key for key, _ in left} & {key for key, _ in policy.items()}


def test_a_link_whose_interface_is_gone_is_forgotten(lab: Lab) -> None:
    lab.datapath.apply(lab.desired())
    ip_batch("link del lxa")
    lab.endpoints = {i: entry for i, entry in lab.endpoints.items() if entry.id != A.id}
    (kept,) = lab.endpoints
    lab.datapath.repair(lab.desired())
    links = {path.name for path in (lab.datapath.root / "links").glob("*endpoint*")}
    assert links == {f"from_endpoint_{kept}", f"to_endpoint_{kept}"}


def test_remove_leaves_nothing(lab: Lab) -> None:
    root = lab.datapath.root
    lab.datapath.close()
    KernelDatapath.remove(lab.instance)
    assert not root.exists()
    KernelDatapath.remove(lab.instance)
    with pytest.raises(HostError, match="no datapath is loaded"):
        KernelDatapath.view(lab.instance)


def test_maps_of_another_version_are_not_read_as_ours(lab):
    (programs,) = (lab.datapath.root / "programs").iterdir()
    for path in programs.iterdir():
        path.unlink()
    programs.rmdir()
    with pytest.raises(HostError, match="another version of Sixfold"):
        KernelDatapath.view(lab.instance)
