"""External services: what entries and DestinationRules say of hosts and ports, put together.

Pure. Of several entries about one host and port the oldest holds, of several rules about a host
likewise; a rule of the entry's namespace goes before others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sixfold.model.domain import SUBDOMAINS, matches, plain_name
from sixfold.model.serviceentry import (
    WITH_NAME,
    ClientTLS,
    DestinationRule,
    EntryPort,
    ServiceEntry,
)
from sixfold.model.world import World


class External(NamedTuple):
    """A port of an external service.

    host   a name, or a pattern
    names  what a handshake may name there; () if nobody looks for one
    tls    how the proxy begins TLS for its clients; None: it does not
    rule   of whose namespace ``tls`` takes its Secret
    """

    entry: str  # namespace/name
    host: str
    port: int
    target_port: int
    names: tuple[str, ...] = ()
    tls: ClientTLS | None = None
    rule: str = ""


def externals(world: World) -> tuple[External, ...]:
    """Every port of every external service that is more than an address."""
    found: dict[tuple[str, int], External] = {}
    for entry in sorted(world.service_entries.values(), key=_age):
        for written in entry.spec.hosts:
            for port in entry.spec.ports:
                one = _external(world, entry, pattern_of(written), port)
                if one is not None:
                    found.setdefault((one.host, one.port), one)
    return tuple(found.values())


def pattern_of(host: str) -> str:
    """Istio's ``*.`` is one label or more."""
    name = plain_name(host)
    return SUBDOMAINS + name.removeprefix("*.") if name.startswith("*.") else name


def _external(world: World, entry: ServiceEntry, host: str, port: EntryPort) -> External | None:
    key = f"{entry.metadata.namespace}/{entry.metadata.name}"
    target = port.target_port or port.number
    if port.protocol in WITH_NAME:
        names = tuple(map(pattern_of, entry.spec.hosts))
        return External(key, host, port.number, port.number, names)
    if port.protocol != "HTTP":
        return None
    for rule in _rules(world, entry, host):
        tls = rule.spec.tls_of(port.number)
        if tls is not None and tls.mode != "DISABLE":
            meta = rule.metadata
            name = f"{meta.namespace}/{meta.name}"
            return External(key, host, port.number, target, tls=tls, rule=name)
        break
    return None


def _rules(world: World, entry: ServiceEntry, host: str) -> Iterator[DestinationRule]:
    meant = [
        one for one in world.destination_rules.values() if matches(pattern_of(one.spec.host), host)
    ]
    own = entry.metadata.namespace
    yield from sorted(meant, key=lambda one: (one.metadata.namespace != own, _age(one)))


def _age(one: ServiceEntry | DestinationRule) -> tuple[str, str, str]:
    meta = one.metadata
    return meta.creation_timestamp or "9", meta.namespace, meta.name
