"""What is wrong with a Posture, beyond its shape."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import said, selector
from sixfold.manifest.path import Finding, Path
from sixfold.model.mesh import TUNNEL_PORT
from sixfold.model.posture import NAME, Posture, Relaxation

RELAXATIONS_MAX = 256


def posture(obj: Posture) -> Iterator[Finding]:
    """Findings about name and spec. A time that is over is none: it relaxes nothing."""
    if obj.metadata.name not in ("", NAME):
        shown = names.quoted(obj.metadata.name)
        yield Finding(("metadata", "name"), f"{shown}: there is one Posture; call it {NAME}")
    path: Path = ("spec", "relaxations")
    if len(obj.spec.relaxations) > RELAXATIONS_MAX:
        yield Finding(path, f"give at most {RELAXATIONS_MAX}")
    seen: set[str] = set()
    for index, one in enumerate(obj.spec.relaxations):
        if one.name in seen:
            message = f"{names.quoted(one.name)} is there already; give another"
            yield Finding((*path, index, "name"), message)
        seen.add(one.name)
        yield from _relaxation((*path, index), one)


def _relaxation(path: Path, one: Relaxation) -> Iterator[Finding]:
    yield from said((*path, "name"), names.dns_label(one.name))
    yield from said((*path, "namespace"), names.dns_label(one.namespace))
    yield from said((*path, "until"), names.moment(one.until))
    if not one.reason.strip():
        yield Finding((*path, "reason"), "is empty; say what it is for")
    if not one.said:
        message = "relaxes nothing; give enforcement: audit, mtls: permissive or discovery: open"
        yield Finding(path, message)
    if one.pod_selector is not None:
        yield from selector((*path, "podSelector"), one.pod_selector)
    narrowed = {"podSelector": one.pod_selector is not None, "ports": bool(one.ports)}
    for name, given in narrowed.items():
        if one.discovery and given:
            message = "names are told of a whole namespace; give discovery a relaxation of its own"
            yield Finding((*path, name), message)
    for index, port in enumerate(one.ports):
        here = (*path, "ports", index)
        yield from said((*here, "port"), names.port_number(port.port))
        if one.mtls and (port.protocol != "TCP" or port.port == TUNNEL_PORT):
            message = f"{port.port}/{port.protocol} has no mode of mTLS; leave it out, or mtls"
            yield Finding((*here, "port"), message)
