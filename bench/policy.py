"""Policy at the scale that peers publish: compiled, read and changed; and looked up by the kernel.

Every shape of ``crowds`` has a process of its own, so that its peak memory is its own. There the
world is compiled and ``reach`` read from it; then everything is loaded into real maps and changed,
one policy, label or endpoint at a time. Worlds are made before the clock starts, as Antrea's are.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from bench.child import in_child
from bench.crowds import FIRST_ADDRESS, SHAPES, policy
from bench.lab import Lab
from bench.lookups import measure as measure_lookups
from bench.schedule import urgent, yardstick_ms
from sixfold.agent.planning import TablesById
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.model.datapath import Datapath
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.identity import FIRST_ALLOCATED, UNKNOWN, Identity, Subject
from sixfold.model.layers import Layers
from sixfold.model.policies import policy_key
from sixfold.model.world import World
from sixfold.policy.plan import PolicyCompiler
from sixfold.policy.reach_parties import View
from sixfold.policy.reach_show import Reach
from sixfold.routing.plan import plan_endpoint

CHANGES, CHILD_S = 15, 90.0
# Antrea's own figures for its controller, from its sources: seconds and MB, on its machines.
PUBLISHED: Mapping[str, tuple[str, str]] = dict(
    zip(
        SHAPES,
        (("5.8 to 6.4", "1,522 to 1,708"), ("10.7", "1,157"), ("1.9 to 25", "")),
        strict=True,
    )
)


def measure(lab: Lab, pick: random.Random) -> dict[str, Any]:
    """Shapes by name, each in a child; then the kernel's lookups."""
    shapes = {}
    for name in SHAPES:
        seed = pick.randrange(1 << 16)
        where = lab.namespace(f"policy{len(shapes)}")
        shapes[name] = _in_child(lab, name, str(where), seed)
    return {"shapes": shapes, "lookups": measure_lookups(lab)}


def _in_child(lab: Lab, name: str, where: str, seed: int) -> dict[str, Any]:
    instance = f"{lab.prefix}policy"
    lab.stack.callback(KernelDatapath.remove, instance)
    return in_child(name, "bench.policy", name, where, instance, str(seed), within_s=CHILD_S)


class Crowd:
    """One world in the kernel, and how long each change takes to be there."""

    def __init__(self, world: World, datapath: KernelDatapath) -> None:
        self.world = world
        self._datapath = datapath
        self._compiler = PolicyCompiler()
        self._by_id = TablesById()
        self._desired = Datapath()
        self._entries = Layers(
            {one.ifindex: plan_endpoint(one, _no_cidr) for one in world.endpoints.values()}
        )

    def compile(self) -> View:
        return View(self.world, self._compiler.compile(self.world))

    def load(self) -> float:
        """ms from a world to the kernel's maps holding it."""
        with urgent():
            start = time.perf_counter()
            plan = self._compiler.compile(self.world)
            tables = self._by_id.follow(self.world.endpoints, plan.tables)
            self._desired = Datapath(endpoints=self._entries, policies=tables)
            self._datapath.apply(self._desired)
            return (time.perf_counter() - start) * 1e3

    def change(self, **fields: Mapping[str, Any]) -> float:
        """The world with these items put; ms until the kernel has it."""
        layers = {name: getattr(self.world, name).changed(some) for name, some in fields.items()}
        for one in fields.get("endpoints", {}).values():
            self._entries = self._entries.changed({one.ifindex: plan_endpoint(one, _no_cidr)})
        self.world = replace(self.world, **layers)
        return self.load()

    def repair(self) -> float:
        """ms that the agent's periodic look at the kernel takes, when nothing is wrong."""
        self._datapath.mend_links = lambda desired: iter(())  # type: ignore[method-assign]
        start = time.perf_counter()
        wrong = self._datapath.repair(self._desired)
        took = (time.perf_counter() - start) * 1e3
        assert not wrong, wrong
        return took

    @property
    def used(self) -> dict[str, int]:
        """Entries in the kernel, by map."""
        names = ("policy", "policy_tables", "endpoints", "addresses")
        return {name: sum(1 for _ in self._datapath.maps[name].items()) for name in names}


def _no_cidr(_: object) -> Identity:
    return UNKNOWN


def _child(name: str, where: str, instance: str, seed: int) -> dict[str, Any]:
    pick = random.Random(seed)
    world = SHAPES[name]()
    with _datapath(where, instance) as datapath:
        crowd = Crowd(world, datapath)
        with urgent():
            yardstick = yardstick_ms()
            start = time.perf_counter()
            view = crowd.compile()
            compiled = time.perf_counter()
            rows = Reach(view).rows()
            done = time.perf_counter()
        memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = {
            "pods": len(world.endpoints),
            "policies": len(world.policies),
            "tables": len({id(table) for table in view.plan.tables.values()}),
            "compile_s": round(compiled - start, 2),
            "reach_s": round(done - compiled, 2),
            "reach_rows": len(rows),
            "peak_mb": round(memory_kb / 1024),
            "yardstick_ms": round(yardstick),
        }
        del view, rows
        found["load_ms"] = round(crowd.load())
        found["maps"] = crowd.used
        for change in (_change_policy, _change_label, _add_endpoint):
            took = [change(crowd, pick, number) for number in range(CHANGES)]
            found[change.__name__[1:] + "_ms"] = round(statistics.median(took), 2)
        found["repair_ms"] = round(crowd.repair())
    return found


def _change_policy(crowd: Crowd, pick: random.Random, number: int) -> float:
    """A policy lets in another app than before, on another port."""
    old = crowd.world.policies[_some(crowd.world.policies, pick, "np-")]
    new = policy(
        old.metadata.namespace,
        old.metadata.name,
        old.spec.pod_selector.match_labels,  # type: ignore[union-attr]
        {"app-2": "scale-2"},
        port=1000 + number,
    )
    return crowd.change(policies={policy_key(new): new})


def _change_label(crowd: Crowd, pick: random.Random, number: int) -> float:
    """A pod gets one label more, which nobody had: an identity of its own."""
    old = crowd.world.endpoints[_some(crowd.world.endpoints, pick, "pod")]
    labels = tuple(sorted({**old.labels, "release": str(number)}.items()))
    subject = Subject(old.namespace, "default", labels, ())
    identity = Identity(FIRST_ALLOCATED + len(crowd.world.endpoints) + number)
    return crowd.change(endpoints={old.key: replace(old, subject=subject, identity=identity)})


def _add_endpoint(crowd: Crowd, pick: random.Random, number: int) -> float:
    """One more pod like another that is there."""
    like = crowd.world.endpoints[_some(crowd.world.endpoints, pick, "pod")]
    count = len(crowd.world.endpoints) + 1
    new: Endpoint = replace(
        like,
        pod=f"late-{number}",
        workload=f"Pod/late-{number}",
        id=EndpointId(count),
        ipv4=IPv4Address(FIRST_ADDRESS + count),
        ifindex=count,
    )
    return crowd.change(endpoints={new.key: new})


def _some(things: Mapping[str, Any], pick: random.Random, prefix: str) -> str:
    """A key whose last part begins so."""
    keys = [key for key in things if key.partition("/")[2].startswith(prefix)]
    return pick.choice(keys)


@contextmanager
def _datapath(where: str, instance: str) -> Iterator[KernelDatapath]:
    with netns.inside(where):
        datapath = KernelDatapath.open(instance)
        try:
            yield datapath
        finally:
            datapath.close()
            KernelDatapath.remove(instance)


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
