"""What is wrong with a PeerAuthentication, beyond its shape."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import said
from sixfold.manifest.path import Finding
from sixfold.model.mesh import TUNNEL_PORT
from sixfold.model.peerauthentication import PeerAuthentication


def peer_authentication(obj: PeerAuthentication) -> Iterator[Finding]:
    """Findings about the spec. Istio ignores ports without a selector; they are refused here."""
    path = ("spec", "portLevelMtls")
    ports = obj.spec.port_level_mtls
    if ports and not obj.labels:
        yield Finding(path, "needs a selector with matchLabels: ports are of workloads; add it")
    for port in ports:
        if not port.isdecimal():
            yield Finding((*path, port), f"{names.quoted(port)} is no port; give a number")
            continue
        yield from said((*path, port), names.port_number(int(port)))
        if int(port) == TUNNEL_PORT:
            yield Finding((*path, port), "is where tunnels end: it has no mode; remove it")
