"""How long a pod's network takes: namespace, veth, addresses, routes, programs, policy in force.

The agent's own hands (``HostNetwork``, ``KernelDatapath``) in its order, one pod after the
other, among pods that are there already; every pod has a policy table of its own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from bench.lab import Lab
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.host.network import HostNetwork
from sixfold.host.paths import Paths
from sixfold.model.config import Config
from sixfold.model.datapath import (
    EGRESS,
    INGRESS,
    Datapath,
    EndpointEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import Identity

PODS = 100


def measure(lab: Lab) -> dict[str, float]:
    """Median and 90th percentile, in ms."""
    with _host(lab) as (config, network, datapath):
        state = Datapath(host_netns_cookie=network.host_netns_cookie())
        datapath.apply(state)
        times_ms = []
        for number in range(1, PODS + 1):
            start = time.perf_counter()
            state = _attach(config, network, datapath, state, number)
            times_ms.append((time.perf_counter() - start) * 1e3)
    return {
        "pods": PODS,
        "median_ms": round(statistics.median(times_ms), 2),
        "p90_ms": round(statistics.quantiles(times_ms, n=10)[-1], 2),
    }


@contextmanager
def _host(lab: Lab) -> Iterator[tuple[Config, HostNetwork, KernelDatapath]]:
    host, instance = lab.namespace("attach"), f"{lab.prefix}attach"
    directories = {
        "SIXFOLD_RUN_DIR": str(lab.directory / "attach" / "run"),
        "SIXFOLD_STATE_DIR": str(lab.directory / "attach" / "state"),
    }
    with patch.dict(os.environ, directories), netns.inside(host):
        config, paths = Config(instance=instance), Paths(instance)
        network = HostNetwork(config, paths)
        datapath = KernelDatapath.open(instance)
        try:
            network.setup()
            yield config, network, datapath
        finally:
            datapath.close()
            KernelDatapath.remove(instance)
            network.teardown()
            network.close()


def _attach(
    config: Config, network: HostNetwork, datapath: KernelDatapath, state: Datapath, number: int
) -> Datapath:
    """What the agent does between a pod's addresses and its first packet."""
    attached = network.attach(
        f"bench/pod-{number}", config.pod_ipv4[10 + number], config.pod_ipv6[10 + number]
    )
    datapath.attach(attached.ifindex)
    entry = EndpointEntry(
        ifindex=attached.ifindex,
        id=EndpointId(number),
        identity=Identity(1000 + number),
        ipv4=attached.ipv4,
        ipv6=attached.ipv6,
        netns_cookie=attached.cookie,
    )
    rules = frozenset(
        PolicyEntry(direction, Identity(1000 + peer), 6, 80, 16, True, number)
        for direction in (INGRESS, EGRESS)
        for peer in range(1, 11)
    )
    state = replace(
        state,
        endpoints={**state.endpoints, attached.ifindex: entry},
        policies={**state.policies, entry.id: PolicyTable.of(rules, number, number)},
    )
    datapath.apply(state)
    network.activate(attached.ifindex)
    return state
