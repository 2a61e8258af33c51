"""``sixfold bpf``: the pinned maps themselves, read directly; the agent only lends names.

Works without the agent: then numbers stay numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from sixfold.balancing.pick import slots_of
from sixfold.cli.output import print_structured, print_table
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.errors import HostError, SixfoldError
from sixfold.model.datapath import (
    ALLOW,
    DENY,
    INGRESS,
    PASS,
    PROTOCOL_NUMBERS,
    Backend,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.identity import FIRST_CIDR, FIRST_DOMAIN, OUTSIDE, RESERVED_NAMES
from sixfold.model.place import place_text

if TYPE_CHECKING:
    from sixfold.host.view import DatapathView

Row = dict[str, Any]
PROTOCOLS = {number: name for name, number in PROTOCOL_NUMBERS.items()}
ACTIONS = {ALLOW: "allow", PASS: "pass", DENY: "deny"}


@dataclass(frozen=True, slots=True)
class Names:
    """What the agent calls the numbers; empty without an agent."""

    identities: Mapping[str, list[str]] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    endpoints: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def ask(cls, settings: Settings) -> Names:
        try:
            return cls(**settings.client.get("/v1/names"))
        except SixfoldError:
            return cls()

    def identity(self, number: int) -> str:
        """``1234 app=web,…`` with what tells it apart, or the reserved name."""
        if number in RESERVED_NAMES and number:
            return RESERVED_NAMES[number].removeprefix("reserved:")  # type: ignore[index]
        own = number - OUTSIDE if FIRST_CIDR + OUTSIDE <= number < FIRST_DOMAIN else number
        labels = self.identities.get(str(own), ())
        shown = [label.removeprefix("k8s:") for label in labels if "io.cilium" not in label]
        return f"{number} {','.join(shown)}".rstrip()

    def rule(self, number: int) -> str:
        return self.rules.get(str(number), f"rule {number}") if number else "-"

    def service(self, number: int) -> str:
        return self.services.get(str(number), f"service {number}") if number else "-"

    def endpoint(self, number: int) -> str:
        return self.endpoints.get(str(number), f"endpoint {number}") if number else "host"


@click.group(
    short_help="Show what is really loaded in the kernel.",
    epilog=examples(
        """
sudo sixfold bpf endpoint list
sudo sixfold bpf ipcache list
sudo sixfold bpf policy list --pod shop/web-0
sudo sixfold bpf lb list -o json
sudo sixfold bpf ct list
"""
    ),
)
def command() -> None:
    """Show what is really loaded in the kernel: the pinned maps, not what the agent believes."""


def _listing(
    name: str, text: str
) -> Callable[[Callable[..., Iterable[Row]]], Callable[..., Iterable[Row]]]:
    """Make ``bpf NAME list`` of a function that yields rows."""

    def decorate(rows: Callable[..., Iterable[Row]]) -> Callable[..., Iterable[Row]]:
        @command.group(name, help=text, short_help=text)
        def group() -> None:
            pass

        @group.command("list", help=text, epilog=examples(f"sudo sixfold bpf {name} list"))
        @click.option("--pod", metavar="NAMESPACE/POD|ID", help="Only what is about this pod.")
        @shared(outputs=ANSWERS)
        @pass_settings
        def listing(settings: Settings, pod: str | None) -> None:
            names = Names.ask(settings)
            with _view(settings) as view:
                found = list(rows(view, names))
            if pod:
                found = [row for row in found if _is_about(row, pod)]
            _show(found, settings.output)

        return rows

    return decorate


@contextmanager
def _view(settings: Settings) -> Iterator[DatapathView]:
    if os.geteuid() != 0:
        raise HostError("bpf: reading the kernel's maps needs root; use sudo")
    from sixfold.host.datapath import KernelDatapath

    view = KernelDatapath.view(settings.paths.instance)
    try:
        yield view
    finally:
        view.close()


def _is_about(row: Row, pod: str) -> bool:
    """Whether a row is of this pod: by name, or by endpoint id; rows of no pod are not."""
    return pod in (str(row.get("id", "")), row.get("endpoint"), row.get("pod"))


def _show(rows: list[Row], output: str) -> None:
    if output in ("json", "yaml"):
        print_structured(rows, output)
        return
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        click.echo("nothing loaded", err=True)
        return
    header = [name.upper().replace("_", " ") for name in columns]
    print_table(header, ([_cell(row.get(name)) for name in columns] for row in rows))


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)


@_listing("endpoint", "Pods that the kernel knows: interface, addresses, identity.")
def endpoints(view: DatapathView, names: Names) -> Iterator[Row]:
    for entry in sorted(view.read().endpoints.values(), key=lambda each: each.id):
        yield {
            "id": entry.id,
            "pod": names.endpoint(entry.id),
            "ifindex": entry.ifindex,
            "ipv4": str(entry.ipv4 or ""),
            "ipv6": str(entry.ipv6 or ""),
            "cidr4": entry.cidr4 or None,
            "cidr6": entry.cidr6 or None,
            "identity": names.identity(entry.identity),
            "accelerated": "yes" if entry.accelerated else None,
        }


@_listing("ipcache", "Which identity an address outside the pods has; the longest prefix decides.")
def ipcache(view: DatapathView, names: Names) -> Iterator[Row]:
    loaded = view.read().ipcache
    for network in sorted(loaded, key=lambda each: (each.version, each)):
        entry = loaded[network]
        yield {
            "prefix": str(network),
            "identity": names.identity(entry.identity),
            "cidr": names.identity(entry.cidr) if entry.cidr else None,
            "domain": names.identity(entry.domain) if entry.domain else None,
        }


@_listing(
    "policy",
    "Every entry of every endpoint's policy table, its default, and how often each rule decided "
    "(for all endpoints); of a table in audit, what would be in force comes last.",
)
def policies(view: DatapathView, names: Names) -> Iterator[Row]:
    tables, hits = view.read().policies, view.rule_hits()
    for number in sorted(tables):
        table = tables[number]
        told = (
            [{**row, "enforcement": "audit"} for row in _table(table.audit)] if table.audit else []
        )
        for row in (*_table(table), *told):
            rule = row.pop("rule")
            named = {"rule": names.rule(rule), "hits": hits.get(rule, 0)}
            peer = {"peer": names.identity(row["peer"])} if isinstance(row["peer"], int) else {}
            yield {"id": number, "endpoint": names.endpoint(number), **row, **peer, **named}


def _table(table: PolicyTable) -> Iterator[Row]:
    for entry in sorted(table.entries, key=lambda one: (not one.admin, one)):
        yield {
            "direction": "ingress" if entry.direction == INGRESS else "egress",
            "tier": "admin" if entry.admin else "",
            "action": ACTIONS[entry.verdict],
            "protocol": PROTOCOLS.get(entry.protocol, str(entry.protocol))
            if entry.protocol
            else "any",
            "port": ports(entry),
            "peer": entry.peer or "any",
            "rule": entry.rule,
        }
    for direction, rule in (("ingress", table.ingress_default), ("egress", table.egress_default)):
        yield {
            "direction": direction,
            "tier": "",
            "action": "deny",
            "protocol": "any",
            "port": "any",
            "peer": "any other",
            "rule": rule,
        }


def ports(entry: PolicyEntry) -> str:
    """The block of ports that an entry's prefix stands for."""
    if not entry.protocol or not entry.port_bits:
        return "any"
    last = entry.port + 2 ** (16 - entry.port_bits) - 1
    return str(entry.port) if last == entry.port else f"{entry.port}-{last}"


@_listing("lb", "Service addresses, and the backends behind each.")
def frontends(view: DatapathView, names: Names) -> Iterator[Row]:
    read = view.read()
    loaded = read.frontends
    for network in sorted(read.service_networks, key=lambda it: it.version):
        yield {
            "service": "",
            "protocol": "any",
            "frontend": f"{network} all others",
            "algorithm": "",
            "slots": 0,
            "backends": ["refused"],
        }
    for key in sorted(loaded, key=lambda f: (f.address.version, f.address, f.protocol, f.port)):
        entry = loaded[key]
        wildcard = not key.port and not key.protocol
        yield {
            "service": names.service(entry.service),
            "protocol": "any" if wildcard else PROTOCOLS.get(key.protocol, str(key.protocol)),
            "frontend": f"{key.address} other ports"
            if wildcard
            else place_text(key.address, key.port),
            "algorithm": entry.algorithm.title,
            "slots": len(slots_of(entry)),
            "backends": [_backend(backend) for backend in entry.backends] or ["refused"],
        }


def _backend(backend: Backend) -> str:
    weight = f" weight {backend.weight}" if backend.weight != 1 else ""
    return place_text(backend.address, backend.port) + weight


@_listing("ct", "Connections that the kernel remembers, with the rules that let them.")
def connections(view: DatapathView, names: Names) -> Iterator[Row]:
    for entry in sorted(view.conntrack(), key=lambda each: each.idle_s):
        service = names.service(entry.service)
        if entry.service and entry.service_port:
            service = f"{service}:{entry.service_port}"
        yield {
            "protocol": PROTOCOLS.get(entry.protocol, str(entry.protocol)),
            "source": place_text(entry.source, entry.source_port),
            "destination": place_text(entry.destination, entry.destination_port),
            "service": service,
            "packets": f"{entry.packets[0]}/{entry.packets[1]}",
            "bytes": f"{entry.bytes[0]}/{entry.bytes[1]}",
            "accelerated": _accelerated(*entry.carried),
            "mesh": TRANSPORTS.get(entry.transport),
            "idle": f"{entry.idle_s:.0f}s",
            "egress_rule": names.rule(entry.rule[1]),
            "ingress_rule": names.rule(entry.rule[0]),
        }


@_listing("mesh", "Modes of mTLS by pod and port, and who came to permissive ports in plaintext.")
def modes(view: DatapathView, names: Names) -> Iterator[Row]:
    came: dict[tuple[int, int], list[str]] = {}
    for who, count, _ in sorted(view.plaintexts()):
        client = f"{names.endpoint(who.client)} ({count})"
        came.setdefault((who.server, who.port), []).append(client)
    lines = {(int(line.endpoint), line.port): line.mode for line in view.read().modes}
    for pod, port in sorted({*lines, *came}):
        mode = lines.get((pod, port))
        yield {
            "pod": names.endpoint(pod),
            "port": str(port or "all others"),
            "mode": mode.name.lower() if mode is not None else None,
            "plaintext_from": ", ".join(came.get((pod, port), [])) or None,
        }


TRANSPORTS = {1: "mTLS", 2: "tunnel"}  # enum transport


def _accelerated(source: int, destination: int) -> str | None:
    """Which way data goes from socket to socket."""
    from sixfold.host.layout import BY_SOCKETS

    ways = {
        (True, True): "both ways",
        (True, False): "from source",
        (False, True): "from destination",
    }
    return ways.get((source == BY_SOCKETS, destination == BY_SOCKETS))


@_listing(
    "dns",
    "Names that the kernel answers, with what it answers, and the views that are told: whose they "
    "are, bpf view list says.",
)
def names_answered(view: DatapathView, names: Names) -> Iterator[Row]:
    from sixfold.discovery.wire import TYPE_NAMES, read_records
    from sixfold.host.names import NameTable
    from sixfold.host.views import ViewTable
    from sixfold.model.names import EVERYTHING, sees

    of, seen = ViewTable(view.maps).read()
    held = set(of.values())
    for key, answer in sorted(NameTable(view.maps).read().items()):
        records = read_records(answer.records, answer.answers) if key.type else []
        told = [one for one, lines in seen.items() if not answer.owner or sees(lines, answer.owner)]
        told = sorted({*told, EVERYTHING} & held)
        everybody = not answer.owner and not answer.shared
        yield {
            "name": key.name,
            "type": TYPE_NAMES[key.type] if key.type else "(exists)",
            "views": ["all"] if everybody else ["shared"] if answer.shared else told or ["none"],
            "ttl": records[0][0] if records else None,
            "answer": [text for _, text in records]
            or (["passed to the resolver"] if answer.passes else []),
        }


@_listing("view", "Which view of the names each pod has, and the services that it shows.")
def views(view: DatapathView, names: Names) -> Iterator[Row]:
    from sixfold.host.views import ViewTable
    from sixfold.model.names import EVERYTHING, FIRST_POD_OWNER, NOTHING, numbers_in

    of, seen = ViewTable(view.maps).read()
    for entry in sorted(view.read().endpoints.values(), key=lambda each: each.id):
        number = of.get(entry.id, NOTHING)
        told = [
            names.service(one)
            if one < FIRST_POD_OWNER
            else f"pod {names.endpoint(one - FIRST_POD_OWNER)}"
            for one in numbers_in(seen.get(number, {}))
        ]
        yield {
            "id": entry.id,
            "pod": names.endpoint(entry.id),
            "view": number,
            "services": ["all"] if number == EVERYTHING else told or ["none"],
        }


@_listing("metrics", "Counters of the datapath: what was forwarded, and dropped, by reason.")
def metrics(view: DatapathView, names: Names) -> Iterator[Row]:
    for name, count in sorted(view.statistics().items()):
        yield {"counter": name, "count": count}
