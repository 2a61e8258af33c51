"""What is measured: the kernel's counters and the agent's own, as families of metrics.

Read when somebody asks, so that it costs a packet nothing. Names follow Prometheus' conventions.
Counters of the kernel go on over a restart of the agent, those of the agent begin at 0.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sixfold import __version__
from sixfold.agent.agent import Agent
from sixfold.agent.dials import dials_seen
from sixfold.agent.events import FlowReader
from sixfold.agent.planning import Plans
from sixfold.balancing.measure import Measured, measure
from sixfold.errors import UnavailableError
from sixfold.host.layout import Load
from sixfold.observe.counts import SERIES_MAX, FlowCounts, Growing, HitCounts, Labels
from sixfold.observe.metrics import Family, Sample, single
from sixfold.trust.audit_discovery import kinds

# Counters of the kernel that are no drop and no answer; see ``enum statistic``.
KERNEL = {
    "connections_forwarded": ("connections", "Connections that policy let through."),
    "connections_audited": ("connections_audited", "Connections that only an audit let in."),
    "connections_cut": ("connections_cut", "Open connections that a change ended."),
    "translated": ("service_dials", "Connects and sends to a service, translated to a backend."),
    "refused": ("service_refusals", "Connects and sends to a service without a backend."),
    "dials_passed_over": ("dials_passed_over", "Dials past a backend where nobody listens."),
    "connections_through_mtls": ("connections_mtls", "Connections between pods in a tunnel."),
    "connections_plaintext": ("connections_plaintext", "Those that only a permissive port let in."),
    "clients_reset": ("clients_reset", "Packets from outside answered with a reset or an error."),
    "arrivals_uncounted": ("arrivals_uncounted", "Connections from outside that no load counts."),
    "neighbours_answered": ("neighbour_answers", "ARP requests and solicitations answered."),
    "noise_ignored": ("noise_packets", "Packets that every stack sends unasked, ignored."),
    "refusals_untold": ("refusals_untold", "Refused system calls beyond eight a second of a kind."),
    "events_lost": ("flow_events_lost", "Flow events that found the ring full."),
    "rule_hits_lost": ("rule_hits_lost", "Decisions that no rule's counter had room for."),
    "names_passed": ("dns_passed", "Questions that the kernel left to the resolver's process."),
}
RCODES = {"names_found": "NOERROR", "names_nodata": "NOERROR", "names_nxdomain": "NXDOMAIN"}
PROCESS = {
    "forwarded": ("dns_forwarded", "Questions asked of upstream resolvers."),
    "cached": ("dns_cache_hits", "Answers of upstreams told once more."),
    "stranger": ("dns_strangers", "Questions of who may not ask."),
    "unsent": ("dns_unsent", "Answers that found the socket full."),
    "edge": ("dns_edge_answers", "Answers to the world."),
    "edge limited": ("dns_edge_limited", "Questions of the world over the limit, unanswered."),
}
AT = "; a backend of several services has those of all of them."
PAGE_BYTES = resource.getpagesize()


class Metrics:
    """Implements ``serve.metrics.Handlers``."""

    def __init__(self, agent: Agent, flows: FlowReader) -> None:
        self._agent = agent
        self._flows = flows
        self._hits = HitCounts()
        self._dials, self._redirected, self._stale = Growing(3), Growing(3), Growing(4)
        self._started_s = time.time()

    async def measure(self) -> list[Family]:
        """Everything, as of now."""
        self._flows.drain()
        families = [*self._of_agent(), *self._of_kernel()]
        families += await self._of_names()
        if (plans := self._agent.plans) is not None:
            families += self._of_backends(plans)
            families += self._of_dials(plans)
            families.append(_of_posture(plans))
        return families

    def _of_agent(self) -> Iterator[Family]:
        agent, used = self._agent, resource.getrusage(resource.RUSAGE_SELF)
        labels = ("version", "node", "posture")
        about = (__version__, agent.config.node, agent.effective.posture)
        yield Family("sixfold_build_info", "gauge", "Who this is.", labels, [(about, 1)])
        yield single(
            "process_start_time_seconds",
            "gauge",
            "When the agent started, since the epoch.",
            round(self._started_s, 2),
        )
        cpu_s = used.ru_utime + used.ru_stime
        yield single("process_cpu_seconds", "counter", "CPU time of the agent.", cpu_s)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        yield single(
            "process_resident_memory_bytes", "gauge", "Memory of the agent.", pages * PAGE_BYTES
        )
        yield single("process_open_fds", "gauge", "Of the agent.", len(os.listdir("/proc/self/fd")))
        yield single("sixfold_generation", "gauge", "Of the objects accepted.", agent.generation)
        yield single(
            "sixfold_generation_in_force", "gauge", "Of those that the kernel has.", agent.applied
        )
        yield agent.rounds.family(
            "sixfold_round_duration_seconds", "From a change until kernel and resolver have it."
        )
        yield single(
            "sixfold_round_failures", "counter", "Rounds that did not come through.", agent.failed
        )
        yield single(
            "sixfold_repairs",
            "counter",
            "What somebody else had changed in the kernel, put back.",
            agent.repaired,
        )
        pods: Counter[Labels] = Counter(
            (key.partition("/")[0], state.phase, "true" if state.ready else "false")
            for key, state in agent.pods().items()
        )
        yield Family("sixfold_pods", "gauge", "Pods.", ("namespace", "phase", "ready"), by(pods))
        kinds: Counter[Labels] = Counter((stored.key.kind,) for stored in agent.objects)
        yield Family("sixfold_objects", "gauge", "Objects, by kind.", ("kind",), by(kinds))

    def _of_kernel(self) -> Iterator[Family]:
        flows, counts = self._flows, self._flows.statistics()
        for name, (metric, help_) in KERNEL.items():
            yield single(f"sixfold_{metric}", "counter", help_, counts.get(name, 0))
        drops: dict[Labels, int] = {
            (name.removeprefix("drop_"),): count
            for name, count in counts.items()
            if name.startswith("drop_")
        }
        yield Family(
            "sixfold_drops",
            "counter",
            "Packets dropped, system calls refused.",
            ("reason",),
            by(drops),
        )
        datapath = self._agent.datapath
        filled: dict[Labels, int] = {(name,): count for name, count in datapath.filled().items()}
        usage = datapath.usage()
        room: dict[Labels, int] = {(name,): usage[name] for (name,) in filled}
        yield Family("sixfold_map_entries", "gauge", "In the kernel.", ("map",), by(filled))
        yield Family("sixfold_map_max_entries", "gauge", "Room for them.", ("map",), by(room))
        yield single("sixfold_flow_events", "counter", "Flow events read.", flows.log.seen)
        yield Family(
            "sixfold_flows",
            "counter",
            "Flow events: connections, drops and names asked; what was lost is not among them.",
            FlowCounts.LABELS,
            by(flows.counts.flows.counts),
        )
        self._hits.take(self._agent.names.rules, flows.rule_hits())
        yield Family(
            "sixfold_policy_rule_hits",
            "counter",
            "Connections that a rule let in, packets that it denied.",
            HitCounts.LABELS,
            by(self._hits.hits.counts),
        )

    async def _of_names(self) -> list[Family]:
        """Who answered what; without a resolver's process only what the kernel did."""
        kernel = self._flows.statistics()
        answers: Counter[Labels] = Counter()
        for name, rcode in RCODES.items():
            answers["kernel", rcode] += kernel.get(name, 0)
        more: list[Family] = []
        up = 0
        with contextlib.suppress(UnavailableError):
            said = (await self._agent.resolver.stats()).statistics
            up = 1
            for name, count in said.items():
                if name.isupper():
                    answers["process", name] += count
            more = [
                single(f"sixfold_{metric}", "counter", help_, said.get(name, 0))
                for name, (metric, help_) in PROCESS.items()
            ]
        labels = ("responder", "rcode")
        return [
            Family("sixfold_dns_answers", "counter", "Names asked.", labels, by(answers)),
            single("sixfold_resolver_up", "gauge", "Whether the resolver's process is there.", up),
            *more,
        ]

    def _of_backends(self, plans: Plans) -> Iterator[Family]:
        loads: dict[Any, Load] = self._agent.datapath.loads()  # a Place is a tuple
        yield from backends(measure(plans.world, loads))
        regions: list[Sample] = [
            ((name.hostname, region.name), int(region.outside.well))
            for name in self._agent.resolver.globals.names
            for region in name.regions
        ]
        yield Family(
            "sixfold_global_name_region_healthy",
            "gauge",
            "Whether an address of the region is well.",
            ("hostname", "region"),
            regions,
        )

    def _of_dials(self, plans: Plans) -> Iterator[Family]:
        """Cached discovery, by workload: what was dialled, and what an audit finds of it now."""
        found: Counter[Labels] = Counter()
        dials: dict[Labels, tuple[Labels, int]] = {}
        redirected: dict[Labels, tuple[Labels, int]] = {}
        stale: dict[Labels, tuple[Labels, int]] = {}
        for seen in dials_seen(self._agent):
            endpoint = plans.world.endpoints[seen.pod]
            about = (endpoint.namespace, endpoint.workload, seen.service)
            found.update((*about, kind) for kind in kinds(seen))
            dials[seen.pod, seen.service] = (about, seen.connections)
            redirected[seen.pod, seen.service] = (about, seen.redirected)
            for name, count in (
                ("RETIRED", seen.retired),
                ("EXPIRED", seen.expired),
                ("NO_LOOKUP", seen.unasked),
            ):
                stale[seen.pod, seen.service, name] = ((*about, name), count)
        self._dials.take(dials)
        self._redirected.take(redirected)
        self._stale.take(stale)
        labels = ("namespace", "workload", "service")
        yield Family(
            "sixfold_headless_dials",
            "counter",
            "Connections to addresses of headless services.",
            labels,
            by(self._dials.sums.counts),
        )
        yield Family(
            "sixfold_stale_dials",
            "counter",
            "Those of them to addresses that no fresh answer had.",
            (*labels, "kind"),
            by(self._stale.sums.counts),
        )
        yield Family(
            "sixfold_redirected_dials",
            "counter",
            "Those of them that were led to who serves now.",
            labels,
            by(self._redirected.sums.counts),
        )
        yield Family(
            "sixfold_stale_cache_findings",
            "gauge",
            "Pods that keep addresses for longer than they may, as sixfold audit says (Z24).",
            (*labels, "kind"),
            by(found),
        )


def backends(measured: Iterator[Measured]) -> Iterator[Family]:
    """How services are: of backends only the first of very many, of services all."""
    states: list[Sample] = []
    panics: list[Sample] = []
    services: tuple[list[Sample], list[Sample]] = ([], [])
    each: tuple[list[Sample], list[Sample]] = ([], [])
    left_out = 0
    for one in measured:
        name = (one.namespace, one.name)
        states += (((*name, state), count) for state, count in one.states.items())
        panics.append((name, int(one.panic)))
        ports: dict[Labels, list[int]] = {}
        for (port, protocol, endpoint), counts in one.loads.items():
            of_port = ports.setdefault((*name, port, protocol), [0, 0])
            fits = len(each[0]) < SERIES_MAX
            left_out += not fits
            for at, count in enumerate(counts):
                of_port[at] += count
                if fits:
                    each[at].append(((*name, port, protocol, endpoint), count))
        for labels, sums in ports.items():
            for at, count in enumerate(sums):
                services[at].append((labels, count))
    service_labels = ("namespace", "service")
    port_labels = (*service_labels, "port", "protocol")
    yield Family(
        "sixfold_service_backends", "gauge", "Endpoints.", (*service_labels, "state"), states
    )
    yield Family(
        "sixfold_service_panic",
        "gauge",
        "Whether all backends are used because too few are healthy.",
        service_labels,
        panics,
    )
    for level, labels, (now, ever) in (
        ("service", port_labels, services),
        ("backend", (*port_labels, "endpoint"), each),
    ):
        metric = f"sixfold_{level}_connections"
        yield Family(f"{metric}_open", "gauge", f"Connections open now{AT}", labels, now)
        yield Family(metric, "counter", f"Connections ever made{AT}", labels, ever)
    yield single(
        "sixfold_backend_series_left_out", "gauge", "Backends without series of theirs.", left_out
    )


def by(counts: Mapping[Labels, int]) -> list[Sample]:
    """Samples in order of their labels."""
    return sorted(counts.items())


def _of_posture(plans: Plans) -> Family:
    """What is relaxed, and until when: an alert is raised before somebody is cut."""
    ends: list[Sample] = [
        ((one.name, one.namespace), round(one.until_s)) for one in plans.world.relaxations
    ]
    return Family(
        "sixfold_posture_relaxation_end_time_seconds",
        "gauge",
        "When a relaxation of the posture ends, since the epoch; those in force.",
        ("relaxation", "namespace"),
        ends,
    )
