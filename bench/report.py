"""Figures as tables, JSON and a plot; which bars they meet."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import acceleration, balancing, dns, mesh, mesh_changes
from bench.balancing import Balancing
from bench.failures import OURS
from bench.mesh_envoy import BARE, HANDSHAKES, SAME
from bench.mesh_peers import HAPROXY, HAPROXY_HTTP, NGINX, NGINX_HTTP
from bench.plot import spread_plot, traffic_plot
from bench.policy import PUBLISHED
from bench.schedule import measured_cpu
from bench.traffic import LIMIT, METRICS, SERVICES, Ratio, Traffic
from sixfold import __version__

RATE, PLAN_MS, LOAD_MS, ENDPOINT_MS = 0.95, 500.0, 50.0, 5.0  # of balancing
FAST = 1.0  # of acceleration
LET_GO = 0.93
RESULTS = Path(__file__).parent / "results"
NEAR, CONNECTS, ATTACH_MS, POLICY_MS, MEMORY_MB = 0.95, 1.15, 20.0, 20.0, 150.0
NAMES, LOOKUP_US = 2.5, (15.0, 100.0)  # rate of the best peer; median and 99 %
PROCESS_RATE, TOLD_MS = 100_000, 50.0
CUT_MS, AUDIT_S = 1000.0, 10.0
SCALE_S, SCALE_MB, CHANGE_MS, JOIN_MS, FLAT = 3.0, 1000.0, 50.0, 1.0, 1.1
UPLINK_NS = 60.0  # a packet of a connection from outside
MAPS = (
    "policy",
    "policy_tables",
    "endpoints",
    "addresses",
)  # of which the policy part counts entries


def machine(seed: int) -> dict[str, str]:
    """What the figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    nft = shutil.which("nft")
    version = (
        subprocess.run([nft, "--version"], capture_output=True, text=True, check=False).stdout
        if nft
        else "not installed"
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{cpu}, {os.cpu_count()} CPUs",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sixfold": __version__,
        "nftables": version.strip(),
        "load average": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "measured on": f"CPU {measured_cpu()}, SCHED_FIFO",
        "seed": str(seed),
    }


def heading(about: Mapping[str, str]) -> str:
    return "\n".join(f"{name:13} {value}" for name, value in about.items()) + "\n"


def section(name: str, found: Any) -> str:
    """One part as Markdown; the same text goes to the terminal."""
    return {
        "traffic": _traffic,
        "programs": _programs,
        "policy": _policy,
        "dns": _dns,
        "acceleration": _acceleration,
        "mesh": _mesh,
        "balancing": _balancing,
        "failures": _failures,
        "attach": _attach,
        "identities": _identities,
        "revocation": _revocation,
        "workloads": _workloads,
    }[name](found)


def write(about: Mapping[str, str], found: Mapping[str, Any]) -> None:
    """All parts of one run into bench/results/."""
    RESULTS.mkdir(exist_ok=True)
    raw = {name: _raw(part) for name, part in found.items()}
    (RESULTS / "latest.json").write_text(json.dumps({"machine": about, **raw}) + "\n")
    lines = ["# Measured by `make bench`", "", *(f"- {k}: {v}" for k, v in about.items()), ""]
    lines += ["![traffic, as part of plain veth](traffic.svg)", ""]
    lines += [section(name, part) + "\n" for name, part in found.items()]
    (RESULTS / "latest.md").write_text("\n".join(lines))
    (RESULTS / "traffic.svg").write_text(traffic_plot(found["traffic"]))
    (RESULTS / "spread.svg").write_text(spread_plot(found["balancing"].spread))
    print(f"written: {RESULTS}/latest.md, latest.json, traffic.svg, spread.svg")


def _raw(part: Any) -> Any:
    """Figures as JSON has them."""
    if isinstance(part, Traffic):
        return part.figures
    if isinstance(part, Balancing | mesh.Mesh):
        return {**asdict(part), "traffic": part.traffic.figures}
    return part


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is readable as text too."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [[*head], ["-" * width for width in widths], *map(list, rows)]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def _traffic(found: Traffic) -> str:
    head = ["path", *(f"{METRICS[metric][0]}, {METRICS[metric][1]}" for metric in found.figures)]
    rows = []
    for peer in found.figures["rr"]:
        cells = []
        for metric in found.figures:
            ratio = found.ratio(metric, peer, LIMIT)
            assert ratio is not None  # plain veth is never skipped
            cells.append(f"{found.median(metric, peer):.1f} ({ratio.median:.3f})")
        rows.append([peer, *cells])
    text = ["## Traffic", "", "Medians; in brackets the ratio to plain veth.", ""]
    text += [_table(head, rows), "", *_traffic_bars(found)]
    text += [f"- skipped: {peer}: {reason}" for peer, reason in found.skipped.items()]
    return "\n".join(text)


def _traffic_bars(found: Traffic) -> list[str]:
    lines = []
    for services in SERVICES:
        ours, theirs = f"Sixfold, {services:,} services", f"nftables, {services:,} services"
        for metric in found.figures:
            to_limit = found.ratio(metric, ours, LIMIT)
            to_nft = found.ratio(metric, ours, theirs)
            if metric != "crr" and to_limit is not None:
                lines.append(_ratio_bar(f"{metric} at {services:,}, of veth", to_limit, NEAR))
            if to_nft is not None:
                wanted = CONNECTS if metric == "crr" else 1.0
                lines.append(_ratio_bar(f"{metric} at {services:,}, of nftables", to_nft, wanted))
    return lines


def _ratio_bar(what: str, value: Ratio, wanted: float) -> str:
    return f"{_bar(what, value.median, wanted)}, 95 % in {value.low:.3f} to {value.high:.3f}"


def _bar(what: str, value: float, wanted: float, *, most: bool = False, unit: str = "") -> str:
    met = value <= wanted if most else value >= wanted
    sign = "≤" if most else "≥"
    return (
        f"- {'met   ' if met else 'MISSED'} {what}: {value:.3g}{unit} (bar {sign} {wanted:g}{unit})"
    )


def _programs(found: Mapping[str, float]) -> str:
    (_, empty), *_ = found.items()
    rows = [[name, f"{ns:.0f}", f"{ns - empty:.0f}"] for name, ns in found.items()]
    bars = [
        _bar(f"{name}, over empty", ns - empty, UPLINK_NS, most=True, unit=" ns")
        for name, ns in found.items()
        if name.startswith("from_uplink, established")
    ]
    table = _table(["ns a packet (or a connect)", "whole", "over empty"], rows)
    return "\n".join(["## Programs", "", table, "", *bars])


def _policy(found: Mapping[str, Any]) -> str:
    head = ["", "compile, s", "reach, s", "peak, MB", "yardstick, ms", "Antrea, published: s", "MB"]
    rows, bars = [], []
    for number, (name, one) in enumerate(found["shapes"].items(), 1):
        took = [f"{one[key]:.2f}" for key in ("compile_s", "reach_s")]
        memory, yardstick = str(one["peak_mb"]), str(one["yardstick_ms"])
        rows.append([f"{number}: {name}", *took, memory, yardstick, *PUBLISHED[name]])
        together = one["compile_s"] + one["reach_s"]
        measured = (
            ("compile and reach", together, SCALE_S, " s"),
            ("peak memory", one["peak_mb"], SCALE_MB, " MB"),
            ("a policy changes", one["change_policy_ms"], CHANGE_MS, " ms"),
            ("a label changes", one["change_label_ms"], CHANGE_MS, " ms"),
            ("an endpoint comes", one["add_endpoint_ms"], JOIN_MS, " ms"),
        )
        bars += [
            _bar(f"{number}: {what}", value, bar, most=True, unit=unit)
            for what, value, bar, unit in measured
        ]
    lookups = {int(count): ns for count, ns in found["lookups"].items() if count.isdecimal()}
    least = min(lookups.values())
    bars.append(_bar("lookup, most over fewest", max(lookups.values()) / least, FLAT, most=True))
    rules = [[f"{count:,}", f"{ns:.0f}"] for count, ns in lookups.items()]
    loaded = [
        [str(number), *(f"{one['maps'][name]:,}" for name in MAPS), f"{one['load_ms']:,}"]
        for number, one in enumerate(found["shapes"].values(), 1)
    ]
    return "\n".join(
        [
            "## Policy",
            "",
            "Changes: from a new world to the kernel's maps, medians. Published figures are of",
            "other machines, from Antrea's sources; they are no measurement of this run. The",
            "yardstick is a loop of two million turns in plain Python, just before: this machine's",
            "speed at that moment.",
            "",
            _table(head, rows),
            "",
            _table(["shape", *MAPS, "loaded in ms"], loaded),
            "",
            _table(["rules on each side", "ns a new connection"], rules),
            "",
            *bars,
        ]
    )


def _dns(found: Mapping[str, Any]) -> str:
    rates, lookups = found["rates"], found["lookup_ns"]
    flights = list(rates["kernel"])
    head = ["answered by", *(f"CPU, µs each, {count} in flight" for count in flights)]
    rows = [
        [name, *(f"{1e6 / rate:.2f}" for rate in by_flight.values())]
        for name, by_flight in rates.items()
    ]
    timed = [[name, *(f"{ns / 1000:.1f}" for ns in both)] for name, both in lookups.items()]
    few = next(iter(rates))
    peers = [name for name in rates if not name.startswith(("kernel", dns.LIMIT))]
    lines = ["## Names", "", _table(head, rows), ""]
    lines += [_table(["getaddrinfo by a search path, µs", "median", "99 %"], timed), ""]
    for count in flights:
        best = max(peers, key=lambda name: rates[name][count], default="")
        if best:
            ratio = rates["kernel"][count] / rates[best][count]
            lines.append(_bar(f"{count} in flight, of the best peer's ({best})", ratio, NAMES))
        ratio = rates[dns.LIMIT][count] / rates["kernel"][count]
        lines.append(f"- {count} in flight, of what it must cost here: {ratio:.2f}")
        ratio = rates["kernel"][count] / rates[few][count]
        lines.append(_bar(f"{count} in flight, 20,000 services of 20", ratio, 0.85))
    for what, ns, bar in zip(("median", "99 %"), lookups["kernel"], LOOKUP_US, strict=True):
        lines.append(_bar(f"getaddrinfo, {what}", ns / 1000, bar, most=True, unit=" µs"))
    median, worst = (
        ns / least for ns, least in zip(lookups["kernel"], lookups[dns.SAME], strict=True)
    )
    lines.append(f"- getaddrinfo, of what it must cost here: {median:.2f}, 99 % {worst:.2f}")
    lines.append(_bar("change to answer", found["change_ms"], 10.0, most=True, unit=" ms"))
    rate = found["process_rate"]
    lines.append(_bar("resolver's process, answers for a second of CPU", rate, PROCESS_RATE))
    lines += [f"- {package}: {version}" for package, version in found["versions"].items()]
    return "\n".join([*lines, *(f"- skipped: {why}" for why in found["skipped"].values())])


def _acceleration(found: Traffic) -> str:
    head = ["way", *_titles(acceleration.METRICS)]
    rows = [
        [peer, *(_beside(found, metric, peer, LIMIT) for metric in found.figures)]
        for peer in found.figures["rr"]
    ]
    bars = []
    for metric in ("rr", "bulk"):
        for other in (LIMIT, acceleration.PLAIN):
            ratio = found.ratio(metric, acceleration.FAST, other)
            assert ratio is not None  # nobody is skipped here
            bars.append(_ratio_bar(f"accelerated {metric}, of {other}", ratio, FAST))
    ratio = found.ratio(acceleration.LATER, acceleration.FAST, LIMIT)
    assert ratio is not None
    bars.append(_ratio_bar(f"{acceleration.LATER}, of {LIMIT}", ratio, LET_GO))
    text = (
        "Two pairs of pods of one agent; medians, in brackets the ratio to plain veth.\n"
        "A stream that outruns its reader goes by packets, at first by the longer way of\n"
        "accelerated sockets; then they are let go."
    )
    return "\n".join(["## Acceleration", "", text, "", _table(head, rows), "", *bars])


def _mesh(found: mesh.Mesh) -> str:
    traffic = found.traffic
    head = [
        "way",
        *_titles(mesh.METRICS),
        *(f"proxy µs, {mesh.COSTS[cost]}" for cost in mesh.COSTS),
    ]
    rows = []
    for peer in dict.fromkeys(peer for of in traffic.figures.values() for peer in of):
        cells = [
            f"{traffic.median(metric, peer):.2f}" if peer in of else "–"
            for metric, of in traffic.figures.items()
        ]
        costs = [found.cpu_us[metric].get(peer) for metric in mesh.COSTS]
        rows.append(
            [peer, *cells, *(f"{statistics.median(it):.1f}" if it else "–" for it in costs)]
        )
    (few, at_first), (many, at_last) = sorted(found.memory_mb.items())
    each_kb = (at_last - at_first) * 1024 / (many - few)
    text = (
        "mTLS from pod to pod, all on one CPU; medians. What each verifies: bench/mesh.py.\n"
        f"Envoy takes {at_first:.0f} MB with {few} pods, {each_kb:.0f} kB more for each.\n"
        f"{mesh.PUBLISHED}"
    )
    at_500_mb = (at_first + (500 - few) * each_kb / 1024) / 500
    bars = [
        *_mesh_bars(found),
        _bar("memory of Envoy for each of 500 pods, by these", at_500_mb, 2, most=True, unit=" MB"),
        *(
            _bar(
                f"route edited → in force, {mesh_changes.SERVICES:,} services, {routed:,} routed",
                *(statistics.median(took), 50),
                most=True,
                unit=" ms",
            )
            for routed, took in found.change_ms.items()
        ),
        *(
            _bar(
                f"Envoy killed → a request served, {routed:,} routed, the slowest",
                *(max(took), 2),
                most=True,
                unit=" s",
            )
            for routed, took in found.restart_s.items()
        ),
    ]
    return "\n".join(["## Mesh", "", text, "", _table(head, rows), "", *bars])


def _mesh_bars(found: mesh.Mesh) -> list[str]:
    """Of the traffic; of others that come in two ways the better one counts."""
    traffic, bars = found.traffic, []
    haproxy, nginx = (HAPROXY, HAPROXY_HTTP), (NGINX, NGINX_HTTP)
    for metric, what in mesh.COSTS.items():
        cpu_us = {who: statistics.median(took) for who, took in found.cpu_us[metric].items()}
        for theirs in (haproxy, nginx):
            costs = {who: cpu_us[who] for who in theirs if who in cpu_us}
            if costs:
                best = min(costs, key=lambda who: costs[who])
                ratio = found.cpu_ratio(metric, mesh.OURS, best)
                bars.append(_bar(f"proxy CPU of {what}, of {best}'s", ratio, 1, most=True))
    ratio = found.cpu_ratio("dials", mesh.OURS, HANDSHAKES)
    what = "proxy CPU of a connection among 32, of a handshake each"
    bars.append(_bar(what, ratio, 0.25, most=True))
    for by_hand, what in ((SAME, "the same filters"), (BARE, "the least that does")):
        ratio = found.cpu_ratio("http", mesh.READ, by_hand)
        what = f"proxy CPU of a request that is read, of Envoy's by hand, {what}"
        bars.append(_bar(what, ratio, 1.05, most=True))
    p50 = {who: traffic.median("p50", who) for who in nginx if who in traffic.figures["p50"]}
    if p50:
        best = min(p50, key=lambda who: p50[who])
        ratio = traffic.median("p50", mesh.OURS) / p50[best]
        bars.append(_bar(f"median latency at 2,000/s, of {best}'s", ratio, 1.1, most=True))
    for metric, who, to, what, wanted in (
        ("dials", mesh.OURS, HANDSHAKES, "new connections, 32 at a time, of a handshake each", 4.0),
        ("crr", mesh.OURS, HANDSHAKES, "new connections, one at a time, likewise", 4.0),
        ("stream", mesh.OURS, NGINX, "stream per core, of nginx's", 1.0),
        ("rr", mesh.RULED, mesh.OURS, "round trips with a rule on another port", 0.99),
        ("http", mesh.RULED, mesh.OURS, "requests with a rule on another port", 0.99),
    ):
        compared = traffic.ratio(metric, who, to)
        if compared is not None:
            bars.append(_ratio_bar(what, compared, wanted))
    return bars


def _titles(metrics: Mapping[str, tuple[str, str, float]]) -> list[str]:
    return [f"{title}, {unit}" for title, unit, _ in metrics.values()]


def _beside(found: Traffic, metric: str, peer: str, to: str) -> str:
    ratio = found.ratio(metric, peer, to)
    assert ratio is not None
    return f"{found.median(metric, peer):.1f} ({ratio.median:.3f})"


def _balancing(found: Balancing) -> str:
    traffic, first = found.traffic, f"Sixfold, {balancing.SERVICES[0]:,}"
    head = ["way, services", *_titles(balancing.METRICS)]
    rows = [
        [peer, *(_beside(traffic, metric, peer, first) for metric in traffic.figures)]
        for peer in traffic.figures["crr"]
    ]
    bars = []
    for services in balancing.SERVICES:
        ours = f"Sixfold, {services:,}"
        others = [f"nftables, {services:,}", f"iptables, {services:,}", "haproxy", "nginx"]
        for metric in traffic.figures:
            if ours != first and (ratio := traffic.ratio(metric, ours, first)):
                bars.append(_ratio_bar(f"{metric} at {services:,}, of that at 1", ratio, RATE))
            bars += [
                _ratio_bar(f"{metric} at {services:,}, of {other}", ratio, 1.0)
                for other in others[: 4 if ours == first else 2]
                if (ratio := traffic.ratio(metric, ours, other))
            ]
    for name, value in found.changes.items():
        wanted = {"plan": PLAN_MS, "load": LOAD_MS}.get(name.partition(" ")[0], ENDPOINT_MS)
        bars.append(_bar(name, value, wanted, most=True, unit=" ms"))
    bars += [f"- skipped: {name}: {why}" for name, why in traffic.skipped.items()]
    workloads = list(next(iter(found.spread.values())))
    spread = [
        [algorithm, *(f"{ratios[name]:.2f}" for name in workloads)]
        for algorithm, ratios in found.spread.items()
    ]
    said = ", ".join(f"{package} {version}" for package, version in found.versions.items())
    return "\n".join(
        [
            "## Balancing",
            "",
            "One service among many, in front of four servers; medians, in brackets the ratio",
            f"to ours at one service. Everything shares one CPU. {said}.",
            "",
            _table(head, rows),
            "",
            "Live connections of the busiest of four backends over their mean; real connections:",
            "",
            _table(["algorithm", *workloads], spread),
            "",
            *bars,
        ]
    )


def _failures(found: Mapping[str, Any]) -> str:
    if why := found.get("skipped"):
        return f"## Failures\n\n- skipped: {why}"
    ways: Mapping[str, Mapping[str, Any]] = found["ways"]
    head = [f"{found['killed']} pods killed", *next(iter(ways.values()))]
    rows = [[name, *map(_figure, each.values())] for name, each in ways.items()]
    share = {name: each["failed %"] for name, each in ways.items()}
    bars = [
        _bar(f"failed requests, beside {name}", share[OURS], share[name], most=True, unit=" %")
        for name in share
        if name != OURS
    ]
    return "\n".join(["## Failures", "", _table(head, rows), "", *bars])


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _attach(found: Mapping[str, float]) -> str:
    line = f"{found['pods']:.0f} pods, one after the other; 90th percentile {found['p90_ms']} ms"
    bar = _bar("pod attached, median", found["median_ms"], ATTACH_MS, most=True, unit=" ms")
    return f"## Attach\n\n{line}\n\n{bar}"


def _identities(found: Mapping[str, float]) -> str:
    rows = [[name.replace("_", " "), f"{value:g}"] for name, value in found.items()]
    head = ["the Workload API's server, one thread", ""]
    return "\n".join(["## Identities", "", _table(head, rows)])


def _revocation(found: Mapping[str, float]) -> str:
    rows = [[name.replace("_", " "), f"{value:g}"] for name, value in found.items()]
    bars = [
        _bar(f"{name} revoked, last byte", found[f"{name}_max_ms"], CUT_MS, most=True, unit=" ms")
        for name in ("rule", "authority", "identity")
    ]
    bars.append(_bar("failed requests while authorities change", found["failed"], 0, most=True))
    head = ["a stream at full speed, in mTLS", ""]
    return "\n".join(["## Revocation", "", _table(head, rows), "", *bars])


def _workloads(found: Mapping[str, float]) -> str:
    rows = [[name.replace("_", " "), f"{value:g}"] for name, value in found.items()]
    bars = [
        _bar(
            "policy in the kernel, median",
            found["policy_median_ms"],
            POLICY_MS,
            most=True,
            unit=" ms",
        ),
        _bar("policy to names, median", found["told_median_ms"], TOLD_MS, most=True, unit=" ms"),
        _bar("audit", found["audit_s"], AUDIT_S, most=True, unit=" s"),
        _bar("agent's memory", found["agent_rss_mb"], MEMORY_MB, most=True, unit=" MB"),
    ]
    return "\n".join(["## Workloads", "", _table(["real pods, one agent", ""], rows), "", *bars])
