"""What the kernel's maps hold, as model values: read once, then kept in step with every write.

``Shadow.changes`` says which writes lead from here to a desired state, in an order in which
no flow that is allowed before and after meets a gap:

  1. what nobody refers to yet: policy tables, backends, slots
  2. who is where: ipcache, endpoints, addresses, namespaces, frontends
  3. the switch: ``policy_of``; then the revision, which has every flow judged anew
  4. what nobody refers to any more; and the revision again, if that changed who is where

Nothing here writes: a state that would not fit is refused before the first write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.changes import Changes, difference, map_full
from sixfold.host.slots import BackendRuns
from sixfold.model.datapath import (
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    IpcacheEntry,
    IPNetwork,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import HOST, WORLD

# Always there, unless somebody asks for something else:
# - a wide IPv6 prefix (::/0) covers the mapped IPv4 addresses as well; this keeps it from
#   deciding about IPv4;
# - nobody routes link-local addresses, so behind them is the host, whatever ::/0 may be.
BUILT_IN: dict[IPNetwork, IpcacheEntry] = {
    IPv4Network("0.0.0.0/0"): IpcacheEntry(WORLD),
    IPv6Network("fe80::/10"): IpcacheEntry(HOST),
}
ZERO = layout.U32.pack(0)

PREPARE = ("backends", "slots", "policy", "policy_tables")
PLACE = ("ipcache", "endpoints", "addresses", "namespaces", "frontends")
TABLES = ("policy", "policy_tables", *PLACE)
ARRAYS = ("backends", "slots", "policy_of")
JUDGED = frozenset({"ipcache", "endpoints", "addresses", "policy_of"})


class Shadow:
    """The state of one instance's maps. After an error it is worthless: read it anew."""

    def __init__(self, capacities: Mapping[str, int]) -> None:
        self._capacities = capacities
        self._packed: dict[str, dict[bytes, bytes]] = {name: {} for name in (*TABLES, *ARRAYS)}
        self.endpoints: dict[int, EndpointEntry] = {}
        self.ipcache: dict[IPNetwork, IpcacheEntry] = {}
        self._ipcache_of: Mapping[IPNetwork, IpcacheEntry] | None = None  # desired, last time
        self.policies: dict[EndpointId, PolicyTable] = {}
        self.frontends: dict[Frontend, FrontendEntry] = {}
        self.host_netns_cookie = 0
        self._numbers: dict[PolicyTable, int] = {}
        self._last_number = 0
        self._runs = BackendRuns(capacities["slots"], capacities["backends"])
        self._busy: frozenset[int] = frozenset()  # numbers that were in use when it was read
        self._orphans = Changes()  # found by read(), deleted by the next advance()

    @property
    def datapath(self) -> Datapath:
        """The same, as planners write it."""
        return Datapath(
            endpoints=self.endpoints,
            ipcache=self.ipcache,
            policies=self.policies,
            frontends=self.frontends,
            host_netns_cookie=self.host_netns_cookie,
        )

    def advance(self, desired: Datapath) -> Changes:
        """Become ``desired``; returns the writes. HostError when a map cannot hold them."""
        changes, self._orphans = self._orphans, Changes()
        nobodys = {name: list(keys) for name, keys in changes.deletes.items()}
        self._runs.settle()
        self._advance_endpoints(desired, changes)
        self._advance_ipcache(desired, changes)
        self._advance_policies(desired, changes)
        self._advance_frontends(desired, changes)
        for name in TABLES:
            known, puts = self._packed[name], changes.puts[name]
            wanted = len(known) + sum(key not in known for key in puts)
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
            self._packed[name].update(puts)
        return changes

    def _unused(self, name: str, keys: Iterable[bytes], puts: Mapping[bytes, bytes]) -> list[bytes]:
        """Of keys that nobody owns, those that no packet is judged by even now."""
        free = [key for key in keys if key not in puts]
        if name not in ("policy", "policy_tables"):
            return free
        at = 4 if name == "policy" else 0  # of the table's number in a key
        return [key for key in free if layout.U32.unpack_from(key, at)[0] not in self._busy]

    def place(self, entries: Mapping[IPNetwork, IpcacheEntry]) -> dict[bytes, bytes]:
        """Take some more into the ipcache; returns the writes. HostError when it is full.

        What was desired last is taken to have them as well.
        """
        puts = {
            layout.pack_network(network): layout.pack_ipcache_entry(entry)
            for network, entry in entries.items()
        }
        known = self._packed["ipcache"]
        wanted = len(known) + sum(key not in known for key in puts)
        if wanted > self._capacities["ipcache"]:
            raise map_full("ipcache", wanted, self._capacities["ipcache"])
        known.update(puts)
        self.ipcache.update(entries)
        return puts

    def is_true(self, maps: Mapping[str, Map]) -> bool:
        """Whether the kernel still holds just this; quick, because it unpacks nothing."""
        return all(dict(maps[name].items()) == self._packed[name] for name in TABLES) and all(
            self._packed[name].items() <= _used(maps[name], self._packed[name]).items()
            for name in ARRAYS
        )

    def _advance_endpoints(self, desired: Datapath, changes: Changes) -> None:
        put, gone = difference(self.endpoints, desired.endpoints)
        before = [self.endpoints[key] for key in [*put, *gone] if key in self.endpoints]
        for ifindex in gone:
            changes.delete("endpoints", layout.U32.pack(ifindex))
        for ifindex in put:
            packed = layout.pack_endpoint(desired.endpoints[ifindex])
            changes.put("endpoints", layout.U32.pack(ifindex), packed)
        after = [desired.endpoints[key] for key in put]
        changes.replace("addresses", _addresses(before), _addresses(after))
        if desired.host_netns_cookie != self.host_netns_cookie:
            old, host = self.host_netns_cookie, desired.host_netns_cookie
            changes.replace("namespaces", _host_namespace(old), _host_namespace(host))
        changes.replace("namespaces", _namespaces(before), _namespaces(after))
        self.endpoints = dict(desired.endpoints)
        self.host_netns_cookie = desired.host_netns_cookie

    def _advance_ipcache(self, desired: Datapath, changes: Changes) -> None:
        if desired.ipcache is self._ipcache_of:
            return
        wanted = {**BUILT_IN, **desired.ipcache}
        put, gone = difference(self.ipcache, wanted)
        for network in put:
            changes.put(
                "ipcache",
                layout.pack_network(network),
                layout.pack_ipcache_entry(wanted[network]),
            )
        for network in gone:
            changes.delete("ipcache", layout.pack_network(network))
        self.ipcache, self._ipcache_of = wanted, desired.ipcache

    def _advance_policies(self, desired: Datapath, changes: Changes) -> None:
        put, gone = difference(self.policies, desired.policies)
        for number in put:
            table = self._table_number(desired.policies[number], changes)
            key = layout.U32.pack(number)
            changes.put("policy_of", key, layout.U32.pack(table))
        for number in gone:
            changes.put("policy_of", layout.U32.pack(number), ZERO)
        if not put and not gone:
            return
        self.policies = dict(desired.policies)
        used = set(self.policies.values())
        used |= {table.audit for table in used if table.audit is not None}
        for unused in [table for table in self._numbers if table not in used]:
            self._delete_table(self._numbers.pop(unused), unused, changes)

    def _table_number(self, table: PolicyTable, changes: Changes) -> int:
        """Equal tables share a number; no number ever means two things."""
        number = self._numbers.get(table)
        if number is not None:
            return number
        audit = self._table_number(table.audit, changes) if table.audit is not None else 0
        self._last_number += 1
        number = self._numbers[table] = self._last_number
        for entry in table.entries:
            changes.put("policy", *layout.pack_policy(number, entry))
        changes.put(
            "policy_tables",
            layout.U32.pack(number),
            layout.pack_defaults(table, audit),
        )
        return number

    @staticmethod
    def _delete_table(number: int, table: PolicyTable, changes: Changes) -> None:
        changes.delete("policy_tables", layout.U32.pack(number))
        for entry in table.entries:
            changes.delete("policy", layout.pack_policy(number, entry)[0])

    def _advance_frontends(self, desired: Datapath, changes: Changes) -> None:
        put, gone = difference(self.frontends, desired.frontends)
        for frontend in put:
            entry, old = desired.frontends[frontend], self.frontends.get(frontend)
            if old is None or old.backends != entry.backends:
                self._runs.replace(frontend, entry.backends, changes)
            run = self._runs[frontend]
            packed = layout.FRONTEND.pack(entry.service, *run, entry.algorithm)
            changes.put("frontends", layout.pack_frontend_key(frontend), packed)
        for frontend in gone:
            changes.delete("frontends", layout.pack_frontend_key(frontend))
            self._runs.release(frontend)
        if put or gone:
            self.frontends = dict(desired.frontends)

    @classmethod
    def read(cls, maps: Mapping[str, Map]) -> Shadow:
        """From the kernel: what an earlier agent left, or what somebody changed."""
        shadow = cls({name: each.definition.max_entries for name, each in maps.items()})
        for name in TABLES:
            shadow._packed[name] = dict(maps[name].items())
        shadow._read_endpoints()
        for key, value in shadow._packed["ipcache"].items():
            network = layout.unpack_network(key)
            shadow.ipcache[network] = layout.unpack_ipcache_entry(value)
        shadow._read_policies(maps)
        shadow._read_frontends(maps)
        return shadow

    def _read_endpoints(self) -> None:
        """An endpoint that lacks an address is as good as none: the next apply puts it whole."""
        cookies = {}
        for key, value in self._packed["namespaces"].items():
            cookies[layout.U32.unpack(value)[0]] = layout.U64.unpack(key)[0]
        self.host_netns_cookie = cookies.get(0, 0)
        addresses = self._packed["addresses"]
        for key, value in self._packed["endpoints"].items():
            entry = layout.unpack_endpoint(value)
            entry = replace(entry, netns_cookie=cookies.get(entry.id, 0))
            if _addresses([entry]).items() <= addresses.items():
                self.endpoints[layout.U32.unpack(key)[0]] = entry
            else:
                self._orphans.delete("endpoints", key)
        owned = _addresses(self.endpoints.values())
        known = _namespaces(self.endpoints.values()) | _host_namespace(self.host_netns_cookie)
        for name, right in (("addresses", owned), ("namespaces", known)):
            for key in self._packed[name].keys() - right.keys():
                self._orphans.delete(name, key)

    def _read_policies(self, maps: Mapping[str, Map]) -> None:
        entries: dict[int, list[PolicyEntry]] = defaultdict(list)
        for key, value in self._packed["policy"].items():
            owner, entry = layout.unpack_policy(key, value)
            entries[owner].append(entry)
        plain, audits = {}, {}
        for key, value in self._packed["policy_tables"].items():
            (number,) = layout.U32.unpack(key)
            found = entries.pop(number, [])
            plain[number], audits[number] = layout.unpack_defaults(value, found)
        tables = {
            number: replace(table, audit=plain[audit]) if (audit := audits[number]) else table
            for number, table in plain.items()
            if not audits[number] or audits[number] in plain
        }
        in_use = set()
        for key, value in maps["policy_of"].items():
            if value == ZERO:
                continue
            in_use.add(layout.U32.unpack(value)[0])
            self._packed["policy_of"][key] = value
            (endpoint,), (number,) = layout.U32.unpack(key), layout.U32.unpack(value)
            if number in tables and self._adopt(number, tables[number], audits[number]):
                self.policies[EndpointId(endpoint)] = tables[number]
            else:
                self._orphans.put("policy_of", key, ZERO)  # unless the next apply wants it
        self._busy = frozenset(in_use | {audits[one] for one in in_use & audits.keys()})
        self._last_number = max([0, *plain, *entries])
        for number, table in plain.items():
            table = tables.get(number, table)
            if self._numbers.get(table) != number:
                self._delete_table(number, table, self._orphans)
        for number, left in entries.items():
            for entry in left:
                self._orphans.delete("policy", layout.pack_policy(number, entry)[0])

    def _adopt(self, number: int, table: PolicyTable, audit: int) -> bool:
        """Of two numbers for one content only one survives; who has the other is put anew."""
        if table.audit is not None and self._numbers.setdefault(table.audit, audit) != audit:
            return False
        return self._numbers.setdefault(table, number) == number

    def _read_frontends(self, maps: Mapping[str, Map]) -> None:
        slots, backends = maps["slots"].items(), maps["backends"].items()
        entries = {
            key: layout.FRONTEND.unpack(value) for key, value in self._packed["frontends"].items()
        }
        end = max((base + count for _, base, count, _ in entries.values()), default=0)
        numbers = [value for _, value in islice(slots, end)]
        last = max((layout.U32.unpack(number)[0] for number in set(numbers)), default=-1)
        places = [layout.unpack_backend(value) for _, value in islice(backends, last + 1)]
        for key, (service, base, count, algorithm) in entries.items():
            run = range(base, base + count)
            if base + count > len(numbers) or any(
                layout.U32.unpack(numbers[slot])[0] >= len(places) for slot in run
            ):
                self._orphans.delete("frontends", key)  # somebody wrote nonsense
                continue
            found = [places[layout.U32.unpack(numbers[slot])[0]] for slot in run]
            for slot in run:
                self._packed["slots"][layout.U32.pack(slot)] = numbers[slot]
            for backend, number in found:
                packed = layout.pack_backend(backend, number)
                self._packed["backends"][layout.U32.pack(number)] = packed
            frontend = layout.unpack_frontend_key(key)
            backends_found = tuple(backend for backend, _ in found)
            self.frontends[frontend] = FrontendEntry(service, backends_found, algorithm)
            self._runs.adopt(frontend, base, found)
        self._runs.adopted()


def _used(source: Map, expected: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """An array map, as far as somebody expects something in it."""
    end = max((layout.U32.unpack(key)[0] for key in expected), default=-1) + 1
    return dict(islice(source.items(), end))


def _addresses(endpoints: Iterable[EndpointEntry]) -> dict[bytes, bytes]:
    return {
        layout.pack_address(address): layout.pack_endpoint(endpoint)
        for endpoint in endpoints
        for address in (endpoint.ipv4, endpoint.ipv6)
        if address is not None
    }


def _namespaces(endpoints: Iterable[EndpointEntry]) -> dict[bytes, bytes]:
    return {
        layout.U64.pack(endpoint.netns_cookie): layout.U32.pack(endpoint.id)
        for endpoint in endpoints
        if endpoint.netns_cookie
    }


def _host_namespace(cookie: int) -> dict[bytes, bytes]:
    return {layout.U64.pack(cookie): ZERO} if cookie else {}
