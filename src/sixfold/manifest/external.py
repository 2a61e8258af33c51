"""What is wrong with a ServiceEntry or a DestinationRule, beyond its shape.

Source: the validation of Istio 1.27, and what only a name that pods resolve themselves can have.
"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.balancing import PLACES
from sixfold.manifest.metadata import said
from sixfold.manifest.path import Finding, Path
from sixfold.model.algorithm import WEIGHT_MAX
from sixfold.model.serviceentry import (
    ClientTLS,
    DestinationRule,
    EntryPort,
    ServiceEntry,
    ServiceEntrySpec,
)

HOSTS_MAX = 256


def service_entry(obj: ServiceEntry) -> Iterator[Finding]:
    """Findings about the spec."""
    spec = obj.spec
    if not 1 <= len(spec.hosts) <= HOSTS_MAX:
        yield Finding(("spec", "hosts"), f"has {len(spec.hosts)}; give 1 to {HOSTS_MAX}")
    speaks_http = any(port.protocol == "HTTP" for port in spec.ports)
    for index, host in enumerate(spec.hosts):
        here: Path = ("spec", "hosts", index)
        yield from _host(here, host)
        if host.startswith("*.") and speaks_http:
            yield Finding(here, "TLS is begun for one host each; name it, or give protocol TLS")
    if not spec.ports:
        yield Finding(("spec", "ports"), "is empty; give the ports of the service")
    numbers: dict[int, int] = {}
    for index, port in enumerate(spec.ports):
        here = ("spec", "ports", index)
        yield from said((*here, "number"), names.port_number(port.number))
        if port.target_port is not None:
            yield from said((*here, "targetPort"), names.port_number(port.target_port))
            if port.protocol != "HTTP" and not _translates(spec, port):
                message = "only requests are led to another port; give the server's in number"
                yield Finding((*here, "targetPort"), message)
        if port.number in numbers:
            yield Finding((*here, "number"), f"{port.number} is in ports[{numbers[port.number]}]")
        numbers.setdefault(port.number, index)
    yield from _placed(obj)


def _placed(obj: ServiceEntry) -> Iterator[Finding]:
    """Of resolution STATIC: where it is."""
    spec = obj.spec
    for key in PLACES.keys() & obj.metadata.annotations.keys() if not spec.addresses else ():
        message = "nobody is balanced who dials no address of ours; give addresses"
        yield Finding(("metadata", "annotations", key), message)
    if spec.resolution != "STATIC":
        for field in ("addresses", "endpoints"):
            if getattr(spec, field):
                message = f"servers of resolution {spec.resolution} are where the names resolve to"
                yield Finding(("spec", field), f"{message}; give resolution STATIC")
        return
    if not spec.endpoints:
        yield Finding(("spec", "endpoints"), "is empty; resolution STATIC needs some")
    for index, host in enumerate(spec.hosts):
        if host.startswith("*.") or "." not in host.rstrip("."):
            message = "names of resolution STATIC are ours to answer; give whole ones, with a dot"
            yield Finding(("spec", "hosts", index), message)
    for index, text in enumerate(spec.addresses):
        yield from said(("spec", "addresses", index), _address(text))
    for index, one in enumerate(spec.endpoints):
        here: Path = ("spec", "endpoints", index)
        yield from said((*here, "address"), _address(one.address))
        if one.weight is not None and not 0 <= one.weight <= WEIGHT_MAX:
            yield Finding((*here, "weight"), f"{one.weight} is none; give 0 to {WEIGHT_MAX}")
        for name, number in one.ports.items():
            yield from said((*here, "ports", name), names.port_number(number))
            if not any(port.name == name and _translates(spec, port) for port in spec.ports):
                message = "only TCP ports are translated, dialled at one of addresses"
                yield Finding((*here, "ports", name), message)


def _address(text: str) -> str | None:
    found = names.address(text)
    if isinstance(found, str):
        return found
    return f"{text} is nobody that a pod could dial" if names.is_special(found) else None


def _translates(spec: ServiceEntrySpec, port: EntryPort) -> bool:
    """Whether the server's port may be another than the one that is dialled."""
    return port.protocol == "TCP" and spec.resolution == "STATIC" and bool(spec.addresses)


def destination_rule(obj: DestinationRule) -> Iterator[Finding]:
    """Findings about the spec."""
    yield from _host(("spec", "host"), obj.spec.host)
    path: Path = ("spec", "trafficPolicy")
    policy = obj.spec.traffic_policy
    if policy.tls is not None:
        yield from _tls((*path, "tls"), policy.tls)
    for index, one in enumerate(policy.port_level_settings):
        here = (*path, "portLevelSettings", index)
        yield from said((*here, "port", "number"), names.port_number(one.port.number))
        if one.tls is not None:
            yield from _tls((*here, "tls"), one.tls)


def _host(path: Path, host: str) -> Iterator[Finding]:
    if host == "*":
        yield Finding(path, "every host is none; name it")
        return
    yield from said(path, names.dns_subdomain(host.removeprefix("*.").rstrip(".")))


def _tls(path: Path, tls: ClientTLS) -> Iterator[Finding]:
    if tls.mode == "MUTUAL" and not tls.credential_name:
        message = "is required of mode MUTUAL; give a Secret with tls.crt, tls.key and ca.crt"
        yield Finding((*path, "credentialName"), message)
    if tls.sni:
        yield from said((*path, "sni"), names.dns_subdomain(tls.sni))
