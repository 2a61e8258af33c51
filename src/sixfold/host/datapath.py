"""The kernel datapath of one instance: opened, attached, brought to a desired state, repaired.

Everything is pinned under /sys/fs/bpf/<instance>: the datapath works without the agent, and
the next agent adopts it. Only ``apply`` and ``repair`` write maps.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host import arrivals, bpf, established, fill, layout, refusals
from sixfold.host.changes import Changes, may_revoke, repairs
from sixfold.host.events import EventReader
from sixfold.host.layout import Load, Place, unpack_endpoint
from sixfold.host.links import Links, detach
from sixfold.host.paths import BPFFS_ROOT, cgroup_root
from sixfold.host.programs import (
    ACCELERATION_FLOOR,
    BARE_UPLINK_PROGRAMS,
    COUNT_MAPS,
    COUPLE,
    JOIN,
    MET_NOTHING,
    PACKET_PROGRAMS,
    PROXY_PROGRAMS,
    REACHED,
    REFUSED,
    SOCK_OPS,
    SOCKET_PROGRAMS,
    TCX,
    TRACEPOINT,
    UPLINK_PROGRAMS,
    Programs,
    expedited_rcu,
    kernel_version,
    objects_hash,
    open_maps,
    open_programs,
    tells_refusals,
)
from sixfold.host.shadow import BUILT_IN, JUDGED, PLACE, PREPARE, Shadow
from sixfold.host.view import REVISION, DatapathView, summed
from sixfold.host.wall import Wall
from sixfold.model.datapath import Datapath, IpcacheEntry, IPNetwork
from sixfold.model.endpoint import HOST_ENDPOINT

PROXY = tuple(map(layout.U32.pack, (6, 7)))  # RUNTIME_PROXY
DENIED = layout.U32.pack(0)  # the revision of a connection that a sweep denied
SWEEP_KEYS = 64  # in one run: KEYS_MAX of bpf/sweep.bpf.c
ETHERNET = bytes(14)


class KernelDatapath(DatapathView):
    """The agent's hand on the kernel; one per instance at a time."""

    def __init__(self, programs: Programs, cgroup: Path | None = None) -> None:
        super().__init__(programs.root, programs.maps)
        self._programs = programs
        self._cgroup = cgroup or cgroup_root()
        self._shadow: Shadow | None = None
        self._wall = Wall()
        self._links = Links(programs.root, programs.fds)
        self._asking: set[bytes] = set()  # keys of endpoints that ask for acceleration
        self._unhooked: set[str] = set()  # hooks that we know to be nowhere
        self._confined: tuple[Path, bool] | None = None  # control group of all pods; traced
        self._sweep_due = True  # an earlier agent may have died before it
        ring = self.maps["events"]
        size = layout.FLOW_EVENT.size
        self.events = EventReader(ring.fd, ring.definition.max_entries, size, self._lost)
        ring, size = self.maps["refusals"], layout.REFUSAL_EVENT.size
        self.refusals = EventReader(ring.fd, ring.definition.max_entries, size, int)

    @classmethod
    def open(cls, instance: str, cgroup: Path | None = None) -> KernelDatapath:
        """Adopt or load; socket hooks are in force when this returns.

        cgroup  whose sockets they see: all, unless a measurement spares those of others
        """
        datapath = cls(open_programs(BPFFS_ROOT / instance), cgroup)
        datapath._attach_sockets()
        list(datapath._links.forget_dead())
        return datapath

    @staticmethod
    def view(instance: str) -> DatapathView:
        """For looking only; HostError when nothing is loaded, or another version's maps."""
        root = BPFFS_ROOT / instance
        maps = open_maps(root)
        if not (root / "programs" / objects_hash()).is_dir():
            raise HostError(
                f"{root}: loaded by another version of Sixfold, whose maps may look different; "
                "restart the agent with this version, or ask with that one"
            )
        return DatapathView(root, maps)

    @staticmethod
    def remove(instance: str) -> None:
        """Detach and unload everything; fine when there is nothing."""
        root = BPFFS_ROOT / instance
        if not root.is_dir():
            return
        with expedited_rcu():
            if (root / "links").is_dir():
                for path in (root / "links").iterdir():
                    detach(path)
            shutil.rmtree(root)

    @property
    def programs(self) -> Mapping[str, int]:
        """Descriptors by name, for ``bpf.run_program``: twin tests and cost per packet."""
        return self._programs.fds

    def close(self) -> None:
        """Let go; what is pinned goes on."""
        self.events.close()
        self.refusals.close()
        self._wall.close()
        self._programs.close()
        self._links.close()

    def attach(self, ifindex: int) -> None:
        """Both programs on the host side of a veth, and the wall behind them; call before the
        link goes up.

        Fine when they are there already; a stale link of an earlier interface is replaced.
        """
        with expedited_rcu():
            self._wall.put_behind(ifindex)
            for name in PACKET_PROGRAMS:
                path = self._links.path(name, ifindex)
                if not self._links.is_attached(path, name, ifindex=ifindex):
                    self._links.detach(path)
                    self._links.attach(path, name, ifindex, TCX[name])

    def detach(self, ifindex: int) -> None:
        """Undo ``attach``; fine when the interface is gone."""
        with expedited_rcu():
            for name in PACKET_PROGRAMS:
                self._links.detach(self._links.path(name, ifindex))

    def keep_uplinks(self, uplinks: Mapping[int, bool]) -> list[str]:
        """Have both programs on these devices and on no others; returns the links that were
        missing. A device that has just gone is no error. No wall: a host without is as before us.

        uplinks  by interface: whether its frames begin with an Ethernet header
        """
        wanted = {
            self._links.path(name, ifindex): (name, ifindex)
            for ifindex, ethernet in uplinks.items()
            for name in (UPLINK_PROGRAMS if ethernet else BARE_UPLINK_PROGRAMS)
        }
        missing = [
            path
            for path, (name, at) in wanted.items()
            if not self._links.is_attached(path, name, ifindex=at)
        ]
        stale = self._links.matching("*_uplink_*") - wanted.keys()
        for path in missing:
            self.programs[wanted[path][0]]  # loaded where it was not: not under the lock
        done = []
        if missing or stale:
            with expedited_rcu():
                for path in (*stale, *missing):
                    self._links.detach(path)
                for path in missing:
                    name, ifindex = wanted[path]
                    with contextlib.suppress(HostError):
                        self._links.attach(path, name, ifindex, TCX[name])
                        done.append(path.name)
        return done

    def reap(self) -> None:
        """Count down connections from outside that ended without a word."""
        self._run_on("reap", arrivals.over(self.maps))

    def release(self) -> None:
        """Let go of accelerated sockets that have gone by packets for a while, and have read what
        was carried: they are slower there than any other."""
        pairs = self.maps["pairs"].items()
        self._run_on("release", [key for key, pair in pairs if layout.PAIR.unpack(pair)[-1]])

    def apply(self, desired: Datapath, *, opens_only: bool = False) -> int:
        """Bring the maps to ``desired``; returns the number of writes.

        ``opens_only``: the caller knows that nothing that is allowed is taken away, so that no
        open connection need be judged anew.

        HostError when something does not fit: nothing was written, the old state is in force.
        """
        if self._shadow is None:
            self._shadow = Shadow.read(self.maps)
            self._asking = _asking(self._shadow.datapath)
        shadow, self._shadow = self._shadow, None  # an error leaves it to be read anew
        before = shadow.datapath
        changes = shadow.advance(desired)
        if HOST_ENDPOINT in desired.policies:
            established.begin_tracking(self.maps, desired)
        if not opens_only:
            self._sweep_due = self._sweep_due or may_revoke(before, shadow.datapath)
        if desired.modes:  # there before anything is captured
            self._hook(REACHED, wanted=True)
        self._write(changes, judge=not opens_only)
        if not desired.modes:
            self._hook(REACHED, wanted=False)
        self._accelerate(changes)
        if HOST_ENDPOINT not in desired.policies:
            established.end_tracking(self.maps)
        self._shadow = shadow
        return len(changes)

    def place(self, entries: Mapping[IPNetwork, IpcacheEntry]) -> None:
        """Write some more of the ipcache, which takes nothing away that is allowed.

        They must have been added to what was applied last, in place.
        """
        shadow, self._shadow = self._shadow or Shadow.read(self.maps), None
        self.maps["ipcache"].update(shadow.place(entries))
        self._shadow = shadow

    def filled(self) -> dict[str, int]:
        """Entries of each map that is a hash; of tries, which the kernel does not count, ours."""
        found = fill.entries(self._programs.fds[COUNT_MAPS], self.maps)
        if (shadow := self._shadow) is not None:
            found |= {"ipcache": len(shadow.ipcache), "source_ranges": len(shadow.source_ranges)}
        return found

    def loads(self, counted: Mapping[int, Load] | None = None) -> dict[Place, Load]:
        """See ``DatapathView``; the shadow knows the numbers."""
        return self._loads(self._shadow, counted) if self._shadow else super().loads(counted)

    def sweep(self) -> dict[bytes, layout.Connection]:
        """Judge all open connections anew, if ``apply`` may have taken away what allowed them.

        Returns those that are cut: their packets are dropped from now on, and flows say so.
        Close their sockets, then ``forget`` them.
        """
        if self._sweep_due:
            judged = (self.maps["runtime"].lookup(REVISION), DENIED)
            connections = self.maps["conntrack"].items()
            stale = [key for key, entry in connections if entry[:4] not in judged]
            self._run_on("sweep", stale)
            captured, at = self.maps["captured"].items(), layout.CONNTRACK_KEY.size
            stale = [key for key, one in captured if one[at : at + 4] not in judged]
            self._run_on("sweep_captured", stale)
            self._sweep_due = False
        now_ns = time.monotonic_ns()
        return {
            key: layout.unpack_connection(key, entry, now_ns)
            for key, entry in self.maps["severed"].items()
        }

    def _run_on(self, program: str, keys: Sequence[bytes]) -> None:
        """Run a program on keys of connections, in place of packets."""
        for start in range(0, len(keys), SWEEP_KEYS):
            some = b"".join(keys[start : start + SWEEP_KEYS])
            bpf.run_program(self._programs.fds[program], ETHERNET + some)

    def forget(self, connections: Iterable[bytes]) -> None:
        """The sockets of these cut connections are closed."""
        keys = list(connections)
        self.maps["conntrack"].delete(
            key
            for key in keys
            if (entry := self.maps["conntrack"].lookup(key)) and entry[:4] == DENIED
        )
        self.maps["severed"].delete(keys)

    def compare(self) -> Iterator[bool]:
        """Whether the maps are as they were left, piece by piece; an ``apply`` amid it ends it."""
        return self._shadow.compare(self.maps) if self._shadow else iter(())

    def repair(self, desired: Datapath, *, compared: bool = False) -> list[str]:
        """Put right what is not there, and say it; ``compared``: maps and links are as left."""
        found = [] if compared else [line for done in self.mend_links(desired) for line in done]
        if self._shadow is not None and (compared or all(self.compare())):
            self.apply(desired)
            return found
        actual = Shadow.read(self.maps)
        found += repairs("endpoints", actual.endpoints, desired.endpoints)
        found += repairs("ipcache", actual.ipcache, {**BUILT_IN, **desired.ipcache})
        found += repairs("policies", actual.datapath.policies, desired.policies)
        found += repairs("frontends", actual.frontends, desired.frontends)
        for name in ("service_networks", "source_ranges"):
            sets = (dict.fromkeys(getattr(one, name), name) for one in (actual, desired))
            found += repairs(name, *sets)
        if actual.host_netns_cookie != desired.host_netns_cookie:
            found.append("namespaces[host]: changed; put back")
        self._shadow, self._asking = actual, _asking(actual.datapath)
        self.apply(desired)
        return found

    def mend_links(self, desired: Datapath) -> Iterator[list[str]]:
        """Attach what somebody detached, and say it; what comes meanwhile waits for the next."""
        again = "links[{}]: detached; attached again".format
        for _ in self._links.forget_dead():
            yield []
        for ifindex in list(desired.endpoints):
            if self._shadow is None or ifindex in self._shadow.endpoints:
                yield [*map(again, self._mend(ifindex))]
        yield [*map(again, self._attach_sockets())]
        if self._confined is not None:
            pods, traced = self._confined
            yield [*map(again, self.keep_confined(pods, traced=traced))]
        for name in self._links.pin_again():
            yield [f"links[{name}]: not pinned; pinned again"]

    def _mend(self, ifindex: int) -> list[str]:
        links = {name: self._links.path(name, ifindex) for name in PACKET_PROGRAMS}
        if missing := [
            path.name
            for name, path in links.items()
            if not self._links.is_attached(path, name, ifindex=ifindex)
        ]:
            with contextlib.suppress(HostError):  # an interface that is gone is its owner's to mend
                self.attach(ifindex)
                return missing
        return []

    def _write(self, changes: Changes, *, judge: bool) -> None:
        for name, keys in changes.room.items():
            self.maps[name].delete(keys)
        for name, stretches in changes.fills.items():
            self.maps[name].fill(stretches)
        for name in (*PREPARE, *PLACE, "policy_of"):
            self.maps[name].update(changes.puts[name])
        self.maps["policy_tables"].update(changes.switches)
        self.maps["policy_of"].update(changes.joins)
        if judge and (changes.switches or any(map(changes.puts.get, JUDGED))):
            self._bump()
        for name, keys in changes.deletes.items():
            self.maps[name].delete(keys)
        if judge and any(changes.deletes.get(name) for name in JUDGED):
            self._bump()

    def _bump(self) -> None:
        """Have every flow judged anew on its next packet; 0 is the value of a fresh map."""
        revision = self.revision() + 1 & 0xFFFFFFFF or 1
        self.maps["runtime"].update({REVISION: layout.U32.pack(revision)})

    def _attach_sockets(self) -> list[str]:
        """The socket hooks at the root of cgroup v2; returns those that were not there."""
        return self._links.keep_in_cgroup(self._cgroup, SOCKET_PROGRAMS)

    def _accelerate(self, changes: Changes) -> None:
        written = changes.puts["endpoints"]
        self._asking.difference_update(written, changes.deletes["endpoints"])
        self._asking.update(key for key in written if unpack_endpoint(written[key]).accelerated)
        self._hook(JOIN, wanted=bool(self._asking) and kernel_version() >= ACCELERATION_FLOOR)

    def _hook(self, name: str, *, wanted: bool) -> None:
        """A hook that costs every TCP socket of the host a little: only while a pod asks."""
        if not wanted and name in self._unhooked:
            return
        self._links.keep_in_cgroup(cgroup_root(), {name: SOCK_OPS}, wanted=wanted)
        (self._unhooked.discard if wanted else self._unhooked.add)(name)

    def keep_proxy(self, cgroup: Path) -> list[str]:
        """Know the proxy by its cgroup: what it dials is not captured, its tunnels pass, and it
        is told what its clients wanted. Returns the links that were missing."""
        number = layout.U64.pack(cgroup.stat().st_ino)
        self.maps["runtime"].update(zip(PROXY, (number[:4], number[4:]), strict=True))
        programs = dict(PROXY_PROGRAMS)
        if kernel_version() >= ACCELERATION_FLOOR:
            programs[COUPLE] = SOCK_OPS
        return self._links.keep_in_cgroup(cgroup, programs)

    def keep_confined(self, pods: Path, *, traced: bool = False) -> list[str]:
        """Tell what the kernel refuses to pods, where it says so; returns the links that were
        missing.

        traced  what came to nothing as well: every system call of the host costs 0.1 µs more
        """
        if not tells_refusals():
            return []
        self._confined = pods, traced
        refusals.confine(self.maps, pods)
        keep = partial(self._links.keep_in_cgroup, cgroup_root())
        return [
            *keep({REFUSED: TRACEPOINT}),
            *keep({MET_NOTHING: TRACEPOINT}, wanted=traced),
        ]

    def _lost(self) -> int:
        return summed(self.maps["statistics"].lookup(layout.U32.pack(0)) or b"")


def _asking(datapath: Datapath) -> set[bytes]:
    """Keys of endpoints that ask for acceleration."""
    return {layout.U32.pack(key) for key, one in datapath.endpoints.items() if one.accelerated}
