"""What the kernel's maps hold, as model values: read once, then kept in step with every write.

``Shadow.changes`` says which writes lead from here to a desired state, in an order in which
no flow that is allowed before and after meets a gap:

  1. what nobody refers to yet: policy tables, backends, slots
  2. who is where: ipcache, endpoints, addresses, namespaces, frontends
  3. the switch: ``policy_of``, and what tables in use hold (see ``shadow_policies``); then the
     revision, which has every flow judged anew
  4. what nobody refers to any more; and the revision again, if that changed who is where

Nothing here writes: a state that would not fit is refused before the first write.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from sixfold.host import layout, port_modes, service_networks, source_ranges, speakers
from sixfold.host.bpf import Map
from sixfold.host.changes import Changes, difference, map_full
from sixfold.host.endpoint_entries import addresses, host_namespace, namespaces
from sixfold.host.layout import Place, Run
from sixfold.host.shadow_policies import ZERO, PolicyShadow
from sixfold.host.slots import LAST_NUMBER, BackendRuns, line_count
from sixfold.host.slots_read import members_of, resting, table_of
from sixfold.host.tables import (
    asked_for,
    read_sections,
    read_tables,
    section_number,
)
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import (
    Backend,
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    FrontendFlag,
    IpcacheEntry,
    IPNetwork,
    PolicyTable,
    SourceRange,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import HOST, WORLD
from sixfold.model.layers import kept
from sixfold.model.mesh import PortMode, Speakers

# Always there, unless somebody asks for something else:
# - a wide IPv6 prefix (::/0) covers the mapped IPv4 addresses as well; this keeps it from
#   deciding about IPv4;
# - nobody routes link-local addresses, so behind them is the host, whatever ::/0 may be.
BUILT_IN: dict[IPNetwork, IpcacheEntry] = {
    IPv4Network("0.0.0.0/0"): IpcacheEntry(WORLD),
    IPv6Network("fe80::/10"): IpcacheEntry(HOST),
}
OUTSIDE, IS_SERVED = map(layout.U32.pack, (3, 1))  # RUNTIME_OUTSIDE

PREPARE = ("service_networks", "runtime", "loads", "policy", "policy_tables", "modes", "speakers")
PLACE = ("ipcache", "endpoints", "addresses", "namespaces", "source_ranges", "frontends")
TABLES = ("policy", "policy_tables", "modes", "speakers", *PLACE)
ARRAYS = ("policy_of", "service_networks")
VALUE_SIZES = {"backends": layout.BACKEND.size, "slots": layout.SLOT_LINE.size}  # of arrays
COUNTERS = ("runtime", "loads")  # written, then the kernel's
JUDGED = frozenset({"ipcache", "endpoints", "addresses", "policy_of", "modes"})


class Shadow:
    """The state of one instance's maps. After an error it is worthless: read it anew."""

    def __init__(self, capacities: Mapping[str, int], active: Callable[[int], int]) -> None:
        self.advances = 0
        self._capacities = capacities
        self._packed: dict[str, dict[bytes, bytes]] = {name: {} for name in (*TABLES, *ARRAYS)}
        self._filled = {name: bytearray() for name in VALUE_SIZES}  # as far as they are used
        self.endpoints: Mapping[int, EndpointEntry] = {}
        self.ipcache: dict[IPNetwork, IpcacheEntry] = {}
        self._ipcache_of: Mapping[IPNetwork, IpcacheEntry] | None = None  # desired, last time
        self.frontends: Mapping[Frontend, FrontendEntry] = {}
        self.service_networks: frozenset[IPNetwork] = frozenset()
        self.source_ranges: frozenset[SourceRange] = frozenset()
        self.modes: frozenset[PortMode] = frozenset()
        self.speakers: frozenset[Speakers] = frozenset()
        self._served: bool | None = None  # from outside, as far as it was looked at
        self.host_netns_cookie = 0
        self._policies = PolicyShadow(capacities["policy"], self._packed["policy"])
        self._runs = BackendRuns(capacities["slots"], capacities["backends"], active)
        # Numbers that packets were judged by when it was read, by map.
        self._busy: dict[str, set[int]] = {}
        self._orphans = Changes()  # found by read(), deleted by the next advance()

    @property
    def datapath(self) -> Datapath:
        """The same, as planners write it."""
        return Datapath(
            endpoints=self.endpoints,
            ipcache=self.ipcache,
            policies=self._policies.now,
            frontends=self.frontends,
            service_networks=self.service_networks,
            source_ranges=self.source_ranges,
            modes=self.modes,
            speakers=self.speakers,
            host_netns_cookie=self.host_netns_cookie,
        )

    def advance(self, desired: Datapath) -> Changes:
        """Become ``desired``; returns the writes. HostError when a map cannot hold them."""
        self.advances += 1
        changes, self._orphans = self._orphans, Changes()
        nobodys = {name: list(keys) for name, keys in changes.deletes.items()}
        self._runs.settle()
        self._advance_endpoints(desired, changes)
        self._advance_ipcache(desired, changes)
        self._policies.advance(desired.policies, changes)
        self._advance_frontends(desired, changes)
        service_networks.advance(self.service_networks, desired.service_networks, changes)
        self.service_networks = desired.service_networks
        source_ranges.advance(self.source_ranges, desired.source_ranges, changes)
        self.source_ranges = desired.source_ranges
        port_modes.advance(self.modes, desired.modes, changes)
        self.modes = desired.modes
        speakers.advance(self.speakers, desired.speakers, changes)
        self.speakers = desired.speakers
        for name in TABLES:
            known, puts = self._packed[name], changes.puts[name]
            wanted = len(known) + len(puts) - sum(map(known.__contains__, puts))
            if wanted > self._capacities[name] and name in nobodys:
                changes.room[name] = self._unused(name, nobodys[name], puts)
                wanted -= len(changes.room[name])
            if wanted > self._capacities[name]:
                raise map_full(name, wanted, self._capacities[name])
        for name, keys in changes.deletes.items():
            # What read() found to be nobody's may have an owner again.
            gone = [key for key in keys if key not in changes.puts[name]]
            changes.deletes[name] = gone
            for key in gone:
                self._packed[name].pop(key, None)
        for name, puts in changes.puts.items():
            if name not in COUNTERS:
                self._packed[name].update(puts)
        self._packed["policy_tables"].update(changes.switches)
        self._packed["policy_of"].update(changes.joins)
        for name, stretches in changes.fills.items():
            _fill(self._filled[name], stretches, VALUE_SIZES[name])
        return changes

    def _unused(self, name: str, keys: Iterable[bytes], puts: Mapping[bytes, bytes]) -> list[bytes]:
        """Of keys that nobody owns, those that no packet is judged by even now."""
        free = [key for key in keys if key not in puts]
        busy = self._busy.get(name, set())
        return [key for key in free if layout.U32.unpack_from(key)[0] not in busy]

    def place(self, entries: Mapping[IPNetwork, IpcacheEntry]) -> dict[bytes, bytes]:
        """Take some more into the ipcache; returns the writes. HostError when it is full.

        What was desired last is taken to have them as well.
        """
        puts = {
            layout.pack_network(network): layout.pack_ipcache_entry(entry)
            for network, entry in entries.items()
        }
        self.advances += 1
        known = self._packed["ipcache"]
        wanted = len(known) + sum(key not in known for key in puts)
        if wanted > self._capacities["ipcache"]:
            raise map_full("ipcache", wanted, self._capacities["ipcache"])
        known.update(puts)
        self.ipcache.update(entries)
        return puts

    @property
    def numbers(self) -> Mapping[Place, int]:
        """Backend numbers, under which the kernel counts connections."""
        return self._runs.numbers

    def is_true(self, maps: Mapping[str, Map]) -> bool:
        """Whether the kernel still holds just this."""
        return all(self.compare(maps))

    def compare(self, maps: Mapping[str, Map]) -> Iterator[bool]:
        """The same, piece by piece; quick, because it unpacks nothing.

        Ends when more is written meanwhile: what it would say then is worthless.
        """
        advances = self.advances
        for name, filled in self._filled.items():
            yield maps[name].read(len(filled) // VALUE_SIZES[name]) == filled
        for name in (*ARRAYS, *reversed(TABLES)):  # the largest at last
            known, left = self._packed[name], len(self._packed[name])
            for keys, values in maps[name].batches():
                if self.advances != advances:
                    return
                if name in ARRAYS:  # what nobody wrote does not matter
                    left -= sum(map(known.__contains__, keys))
                    yield [*map(known.get, keys, values)] == values
                    if not left:
                        break
                else:
                    left -= len(keys)
                    yield [*map(known.get, keys)] == values
            if self.advances == advances:
                yield not left

    def _advance_endpoints(self, desired: Datapath, changes: Changes) -> None:
        put, gone = difference(self.endpoints, desired.endpoints)
        before = [self.endpoints[key] for key in [*put, *gone] if key in self.endpoints]
        for ifindex in gone:
            changes.delete("endpoints", layout.U32.pack(ifindex))
        for ifindex, entry in put.items():
            packed = layout.pack_endpoint(entry)
            changes.put("endpoints", layout.U32.pack(ifindex), packed)
        after = [*put.values()]
        changes.replace("addresses", addresses(before), addresses(after))
        if desired.host_netns_cookie != self.host_netns_cookie:
            old, host = self.host_netns_cookie, desired.host_netns_cookie
            changes.replace("namespaces", host_namespace(old), host_namespace(host))
        changes.replace("namespaces", namespaces(before), namespaces(after))
        self.endpoints = kept(desired.endpoints)
        self.host_netns_cookie = desired.host_netns_cookie

    def _advance_ipcache(self, desired: Datapath, changes: Changes) -> None:
        if desired.ipcache is self._ipcache_of:
            return
        wanted = {**BUILT_IN, **desired.ipcache}
        put, gone = difference(self.ipcache, wanted)
        for network, entry in put.items():
            changes.put("ipcache", layout.pack_network(network), layout.pack_ipcache_entry(entry))
        for network in gone:
            changes.delete("ipcache", layout.pack_network(network))
        self.ipcache, self._ipcache_of = wanted, desired.ipcache

    def _advance_frontends(self, desired: Datapath, changes: Changes) -> None:
        put, gone = difference(self.frontends, desired.frontends)
        known = self.frontends
        before = {one: known[one] for one in put if one in known} if known else {}
        stay = {
            one: put[one]
            for one, old in before.items()
            if (old.backends, old.table) == (put[one].backends, put[one].table)
        }
        fresh = {one: it for one, it in put.items() if one not in stay} if stay else put
        empty = {one: it for one, it in fresh.items() if not it.backends}
        listing = {one: it for one, it in fresh.items() if it.backends} if empty else fresh
        runs = self._runs.give(listing, changes)
        left = {one: it for one, it in before.items() if one not in stay}
        left.update((one, known[one]) for one in gone)
        self._runs.release(left, map(self._run_of, left))
        stays = array("I", [word for one in stay for word in self._run_of(one).words])
        puts = changes.puts["frontends"]
        none = array("I", bytes(layout.RUN.size * len(empty)))
        for some, theirs in ((listing, runs), (empty, none), (stay, stays)):
            keys = [one.packed for one in some]
            puts.update(zip(keys, layout.pack_frontends([*some.values()], theirs), strict=True))
        for frontend in gone:
            changes.delete("frontends", frontend.packed)
        self._serve_outside(put, changes)
        self.frontends = desired.frontends

    def _run_of(self, frontend: Frontend) -> Run:
        """As it was written last."""
        packed = self._packed["frontends"][frontend.packed]
        return layout.unpack_frontend(packed).run

    def _serve_outside(self, put: Mapping[Frontend, FrontendEntry], changes: Changes) -> None:
        """Have the programs on the uplinks look for services, once there is one; for good, for
        connections outlive it."""
        if self._served:
            return
        flags = [entry.flags for entry in put.values()]
        if self._served is None:
            flags += [entry.flags for entry in self.frontends.values()]
        self._served = any(flags)
        if self._served:
            changes.put("runtime", OUTSIDE, IS_SERVED)

    @classmethod
    def read(cls, maps: Mapping[str, Map]) -> Shadow:
        """From the kernel: what an earlier agent left, or what somebody changed."""
        loads = maps["loads"]
        shadow = cls(
            {name: each.definition.max_entries for name, each in maps.items()},
            lambda number: (
                layout.unpack_load(
                    loads.lookup(layout.U32.pack(number)) or bytes(layout.LOAD.size)
                ).active
            ),
        )
        for name in TABLES:
            shadow._packed[name].update(maps[name].items())
        shadow._read_endpoints()
        for key, value in shadow._packed["ipcache"].items():
            network = layout.unpack_network(key)
            shadow.ipcache[network] = layout.unpack_ipcache_entry(value)
        shadow._read_policies(maps)
        shadow._read_frontends(maps)
        shadow._packed["service_networks"].update(maps["service_networks"].items())
        shadow.service_networks = service_networks.read(shadow._packed["service_networks"])
        shadow.source_ranges = source_ranges.read(shadow._packed["source_ranges"])
        shadow.modes = port_modes.read(shadow._packed["modes"], shadow._orphans)
        shadow.speakers = speakers.read(shadow._packed["speakers"])
        return shadow

    def _read_endpoints(self) -> None:
        """An endpoint that lacks an address is as good as none: the next apply puts it whole."""
        cookies = {}
        for key, value in self._packed["namespaces"].items():
            cookies[layout.U32.unpack(value)[0]] = layout.U64.unpack(key)[0]
        self.host_netns_cookie = cookies.get(0, 0)
        known = self._packed["addresses"]
        self.endpoints = endpoints = {}
        for key, value in self._packed["endpoints"].items():
            entry = layout.unpack_endpoint(value)
            entry = replace(entry, netns_cookie=cookies.get(entry.id, 0))
            if addresses([entry]).items() <= known.items():
                endpoints[layout.U32.unpack(key)[0]] = entry
            else:
                self._orphans.delete("endpoints", key)
        owned = addresses(self.endpoints.values())
        sockets = namespaces(self.endpoints.values()) | host_namespace(self.host_netns_cookie)
        for name, right in (("addresses", owned), ("namespaces", sockets)):
            for key in self._packed[name].keys() - right.keys():
                self._orphans.delete(name, key)

    def _read_policies(self, maps: Mapping[str, Map]) -> None:
        """What nobody refers to, and of equal tables all but one, is deleted by the next apply."""
        policy, written = self._packed["policy"], self._packed["policy_tables"]
        sections = read_sections(policy)
        tables = read_tables(written, sections)
        self._policies.sections.last = max((section_number(key) for key in policy), default=0)
        self._policies.tables.last = max((layout.U32.unpack(key)[0] for key in written), default=0)
        policies: dict[EndpointId, PolicyTable] = {}
        in_use: set[int] = set()
        for key, value in maps["policy_of"].items():
            if value == ZERO:
                continue
            in_use.add(layout.U32.unpack(value)[0])
            self._packed["policy_of"][key] = value
            (endpoint,), (number,) = layout.U32.unpack(key), layout.U32.unpack(value)
            if number in tables:
                self._policies.adopt_table(number, tables)
                policies[EndpointId(endpoint)] = tables[number].table
            else:
                self._orphans.put("policy_of", key, ZERO)  # unless the next apply wants it
        self._policies.adopt(policies)
        self._busy = asked_for(written, in_use)
        for key in written:
            if not self._policies.tables.knows(layout.U32.unpack(key)[0]):
                self._orphans.delete("policy_tables", key)
        for key in policy:
            if not self._policies.sections.knows(section_number(key)):
                self._orphans.delete("policy", key)

    def _read_frontends(self, maps: Mapping[str, Map]) -> None:
        entries = {
            key: layout.unpack_frontend(value) for key, value in self._packed["frontends"].items()
        }
        end = max((one.run.end for one in entries.values()), default=0)
        lines = maps["slots"].read(line_count(end))
        slots = array("I", lines)
        (last,) = layout.U32.unpack(maps["runtime"].lookup(LAST_NUMBER) or ZERO)
        numbered = maps["backends"].read(last + 1)
        self._filled = {"backends": bytearray(numbered), "slots": bytearray(lines)}
        numbers = layout.unpack_backends(numbered)
        frontends: dict[Frontend, FrontendEntry] = {}
        runs: list[Run] = []
        for key, (service, run, affinity_s, algorithm, flags) in entries.items():
            found = members_of(slots, run, len(numbers))
            if found is None or algorithm not in [*Algorithm]:
                self._orphans.delete("frontends", key)  # somebody wrote nonsense
                continue
            backends = tuple(Backend(numbers[number][1], weight) for number, weight in found)
            frontend = Frontend(key)
            table = table_of(slots, run)
            frontends[frontend] = FrontendEntry(
                service, backends, Algorithm(algorithm), table, affinity_s, FrontendFlag(flags)
            )
            runs.append(run)
            self._runs.adopt(frontend.protocol, [(numbers[it][1], it) for it, _ in found])
        self._runs.adopted(runs, resting(maps["loads"], numbers), last)
        self.frontends = frontends


def _fill(array: bytearray, stretches: Iterable[tuple[int, bytes | bytearray]], size: int) -> None:
    """Take stretches of an array into what is known of it."""
    for at, values in stretches:
        array.extend(bytes(max(0, at * size - len(array))))
        array[at * size : at * size + len(values)] = values
