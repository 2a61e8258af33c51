"""The Python structs are those of the compiled objects, field by field, through BTF."""

from __future__ import annotations

import re
import struct
from array import array
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.host import layout
from sixfold.host.layout import Run
from sixfold.host.programs import OBJECT_NAMES, OBJECTS
from sixfold.host.service_networks import pack_service_network, unpack_service_network
from sixfold.host.shadow_policies import section_size
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import (
    ALLOW,
    ANY_PROTOCOL,
    DENY,
    PASS,
    Backend,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    IPAddress,
    IpcacheEntry,
    PortRule,
    Section,
    section_of,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import Identity
from sixfold.model.place import pack_port
from sixfold.model.reason import DropReason

ROOT = Path(__file__).parents[2]
STRUCTS = {
    "endpoint": layout.ENDPOINT,
    "ipcache_key": layout.IPCACHE_KEY,
    "ipcache_entry": layout.IPCACHE_ENTRY,
    "policy_key": layout.POLICY_KEY,
    "policy_entry": layout.POLICY_ENTRY,
    "policy_table": layout.POLICY_TABLE,
    "frontend_key": layout.FRONTEND_KEY,
    "frontend": layout.FRONTEND,
    "slot_line": layout.SLOT_LINE,
    "backend": layout.BACKEND,
    "load": layout.LOAD,
    "conntrack_key": layout.CONNTRACK_KEY,
    "conntrack": layout.CONNTRACK,
    "tuple": layout.TUPLE,
    "captured_key": layout.CAPTURED_KEY,
    "port_mode_key": layout.PORT_MODE_KEY,
    "port_mode": layout.PORT_MODE,
    "plaintext_key": layout.PLAINTEXT_KEY,
    "plaintext": layout.PLAINTEXT,
    "arrival": layout.ARRIVAL,
    "arrival_line": layout.ARRIVAL_LINE,
    "pair": layout.PAIR,
    "deaf_key": layout.DEAF_KEY,
    "source_range": layout.SOURCE_RANGE,
    "service_network": layout.SERVICE_NETWORK,
    "device": layout.DEVICE,
    "flow_event": layout.FLOW_EVENT,
    "speakers": layout.SPEAKERS,
    "confinement": layout.CONFINEMENT,
    "refusal_key": layout.REFUSAL_KEY,
    "refusal_told": layout.REFUSAL_TOLD,
    "refusal_event": layout.REFUSAL_EVENT,
    "system_call_known": layout.SYSTEM_CALL_KNOWN,
    "name_key": layout.NAME_KEY,
    "name_factors": layout.NAME_FACTORS,
    "name_records": layout.NAME_RECORDS,
    "name_zone": layout.NAME_ZONE,
    "view_key": layout.VIEW_KEY,
    "named_address": layout.NAMED_ADDRESS,
    "pod_owner": layout.POD_OWNER,
    "dials": layout.DIALS,
    "view_line": layout.VIEW_LINE,
}
INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF = 1, 2, 3, 4, 5, 6, 8
QUALIFIERS = (TYPEDEF, 9, 10, 11)  # const, volatile, restrict
SKIPPED = {ENUM: 8, 13: 8, 14: 4, 15: 12, 17: 4, 19: 12}  # bytes that follow, by kind


class Btf:
    """As much of a BTF section as struct layouts need (linux/btf.h)."""

    def __init__(self, path: Path) -> None:
        image = path.read_bytes()
        raw = image[image.index(b"\x9f\xeb\x01") :]
        header, types, types_size, strings, _ = struct.unpack_from("<IIIII", raw, 4)
        self._raw, self._strings = raw, header + strings
        self.types: list[tuple[int, int, str, list[tuple[str, int, int]]]] = [(0, 0, "", [])]
        at, end = header + types, header + types + types_size
        while at < end:
            at = self._read(at)

    def _read(self, at: int) -> int:
        name, packed, size = struct.unpack_from("<III", self._raw, at)
        kind, count = packed >> 24 & 31, packed & 0xFFFF
        at += 12
        members = []
        if kind in (STRUCT, UNION):
            for i in range(count):
                member, type_, bits = struct.unpack_from("<III", self._raw, at + 12 * i)
                members.append((self._string(member), type_, bits & 0xFFFFFF))
            at += 12 * count
        elif kind == ARRAY:
            element, _, length = struct.unpack_from("<III", self._raw, at)
            members.append(("", element, length))
            at += 12
        elif kind == INT:
            at += 4
        elif kind in SKIPPED:
            at += SKIPPED[kind] * (1 if kind in (14, 17) else count)
        self.types.append((kind, size, self._string(name), members))
        return at

    def _string(self, at: int) -> str:
        start = self._strings + at
        return self._raw[start : self._raw.index(b"\0", start)].decode()

    def struct(self, name: str) -> int | None:
        found = (i for i, t in enumerate(self.types) if t[0] == STRUCT and t[2] == name)
        return next(found, None)

    def _is_byte(self, number: int) -> bool:
        kind, size, _, _ = self.types[number]
        return self._is_byte(size) if kind in QUALIFIERS else kind == INT and size == 1

    def fields(self, number: int, base: int = 0, name: str = "") -> list[tuple[str, int, int]]:
        """(name, offset, size) of every scalar; an address counts as one of 16 bytes."""
        kind, size, type_name, members = self.types[number]
        if kind in QUALIFIERS:
            return self.fields(size, base, name)
        if kind == ARRAY:
            (_, element, length) = members[0]
            if self._is_byte(element):
                return [(name, base, length)]  # bytes count as one
            width = sum(field[2] for field in self.fields(element))
            return [
                field
                for i in range(length)
                for field in self.fields(element, base + i * width, f"{name}[{i}]")
            ]
        if kind == STRUCT:
            return [
                field
                for member, type_, bits in members
                for field in self.fields(type_, base + bits // 8, member)
            ]
        assert kind in (INT, UNION, ENUM), (kind, type_name)
        return [(name, base, size)]


def scalars(layout_: struct.Struct) -> list[tuple[int, int]]:
    """(offset, size) of every field of a format, pads left out."""
    fields, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout_.format):
        if code in "sx":
            width = int(count or 1)
            if code == "s":
                fields.append((at, width))
            at += width
            continue
        width = struct.calcsize("<" + code)
        for _ in range(int(count or 1)):
            fields.append((at, width))
            at += width
    return fields


@pytest.fixture(scope="module")
def btf() -> list[Btf]:
    if not all((OBJECTS / name).exists() for name in OBJECT_NAMES):
        pytest.skip("datapath not built; run python hatch_build.py")
    return [Btf(OBJECTS / name) for name in OBJECT_NAMES]


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_equals_its_twin_in_the_object(btf: list[Btf], name: str) -> None:
    each = next(each for each in btf if each.struct(name) is not None)
    number = each.struct(name)
    assert number is not None
    fields = [
        (offset, size) for name, offset, size in each.fields(number) if not name.startswith("pad")
    ]
    packed = scalars(STRUCTS[name])
    assert packed == fields
    assert STRUCTS[name].size == each.types[number][1]


def test_drop_reasons_are_those_of_the_header_and_of_the_documentation() -> None:
    header = (ROOT / "bpf" / "sixfold.h").read_text()
    declared = {name: int(n) for name, n in re.findall(r"DROP_(\w+) = (\d+)", header)}
    assert declared == {reason.name: reason.value for reason in DropReason}
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)`", (ROOT / "docs" / "drops.md").read_text(), re.MULTILINE
    )
    documented = {name: int(number) for number, name in rows}
    assert documented == {r.name: r.value for r in DropReason if r is not DropReason.NONE}


addresses = st.ip_addresses().filter(
    lambda a: not (isinstance(a, IPv6Address) and a.ipv4_mapped) and int(a) != 0
)
u32 = st.integers(0, 2**32 - 1)
ports = st.integers(0, 65535)


@given(addresses)
def test_an_address_survives(address: IPv4Address | IPv6Address) -> None:
    assert layout.unpack_address(layout.pack_address(address)) == address


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_ipv4_network_survives(address: IPv4Address, bits: int) -> None:
    network = IPv4Network((address, bits), strict=False)
    assert layout.unpack_network(layout.pack_network(network)) == network
    index, packed = pack_service_network(network)
    assert (index, unpack_service_network(packed)) == (bytes(4), network)


@given(st.ip_addresses(v=6).filter(lambda a: not a.ipv4_mapped), st.integers(0, 128))
def test_an_ipv6_network_survives(address: IPv6Address, bits: int) -> None:
    network = IPv6Network((address, bits), strict=False)
    assert layout.unpack_network(layout.pack_network(network)) == network
    index, packed = pack_service_network(network)
    assert (index, unpack_service_network(packed)) == (b"\1\0\0\0", network)


@given(st.builds(IpcacheEntry, u32, u32))
def test_an_ipcache_entry_survives(entry: IpcacheEntry) -> None:
    assert layout.unpack_ipcache_entry(layout.pack_ipcache_entry(entry)) == entry


@given(
    st.builds(
        EndpointEntry,
        ifindex=u32,
        id=st.integers(1, 65535).map(EndpointId),
        identity=u32.map(Identity),
        ipv4=st.none() | st.ip_addresses(v=4),
        ipv6=st.none() | st.ip_addresses(v=6).filter(lambda a: int(a) != 0),
        cidr4=u32,
        cidr6=u32,
        netns_cookie=st.integers(0, 2**63),
    )
)
def test_an_endpoint_survives(entry: EndpointEntry) -> None:
    packed = layout.pack_endpoint(entry)
    assert layout.unpack_endpoint(packed, entry.netns_cookie) == entry


def aligned(rule: PortRule) -> PortRule:
    if rule.protocol == ANY_PROTOCOL:
        return rule._replace(port=0, port_bits=0)
    return rule._replace(port=rule.port & ~0 << (16 - rule.port_bits))


port_rules = st.builds(
    PortRule,
    protocol=st.integers(0, 255),
    port=ports,
    port_bits=st.integers(0, 16),
    verdict=st.sampled_from([ALLOW, PASS, DENY]),
    rule=u32,
    precedence=st.integers(0, 2**30 - 1),
).map(aligned)
sections = st.dictionaries(
    u32.map(Identity), st.lists(port_rules, min_size=1, unique_by=lambda rule: rule[:3])
).map(section_of)


@given(u32, sections)
def test_a_section_survives(number: int, section: Section) -> None:
    packed = dict(layout.pack_section(number, section))
    assert len(packed) == section_size(section)
    peers: dict[Identity, list[PortRule]] = {}
    for key, value in packed.items():
        owner, peer, rule = layout.unpack_policy(key, value)
        assert owner == number
        peers.setdefault(peer, []).extend([rule] if rule else [])
    assert section_of(peers) == section


@given(addresses, ports, st.integers(0, 255))
def test_a_frontend_is_its_key(address: IPAddress, port: int, protocol: int) -> None:
    frontend = Frontend.at(address, port, protocol)
    key = layout.FRONTEND_KEY.pack(layout.pack_address(address), pack_port(port), protocol)
    assert frontend.packed == key
    assert (frontend.address, frontend.port, frontend.protocol) == (address, port, protocol)


backends = st.builds(Backend.at, addresses, ports)


@given(st.lists(backends, min_size=1), st.integers(0, 255))
def test_backends_survive(backends: list[Backend], protocol: int) -> None:
    packed = layout.pack_backends(protocol, [it.packed for it in backends])
    assert layout.unpack_backends(packed) == [(protocol, it.packed) for it in backends]
    assert len(packed) == len(backends) * layout.BACKEND.size


@given(st.integers(0, 2**18 - 1), st.integers(0, 2**14 - 1))
def test_a_slot_survives(number: int, weight: int) -> None:
    assert layout.unpack_slot(layout.pack_slot(number, weight)) == (number, weight)


says = st.tuples(u32, st.builds(Run, u32, u32, u32, u32), st.sampled_from(Algorithm), u32)


@given(st.lists(says))
def test_what_frontends_say_of_their_slots_survives(
    said: list[tuple[int, Run, Algorithm, int]],
) -> None:
    entries = [
        FrontendEntry(service, (), algorithm, affinity_s=affinity_s)
        for service, _, algorithm, affinity_s in said
    ]
    runs = array("I", [word for _, run, _, _ in said for word in run.words])
    packed = layout.pack_frontends(entries, runs)
    assert [layout.unpack_frontend(one) for one in packed] == [
        (service, run, affinity_s, algorithm, 0) for service, run, algorithm, affinity_s in said
    ]
