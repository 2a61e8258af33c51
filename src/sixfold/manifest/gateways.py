"""What is wrong with a Gateway, beyond its shape. Conflicts between listeners are its status."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import labels, said, selector
from sixfold.manifest.path import Finding, Path
from sixfold.model.gateway import Gateway, Listener

LISTENERS_MAX = 64
TAKEN = (15001, 15002, 15003, 15004, 15005, 15008)  # where the proxy listens in every pod


def gateway(obj: Gateway) -> Iterator[Finding]:
    """Findings about the spec."""
    path: Path = ("spec",)
    name = obj.made.partition("/")[2]
    if wrong := names.dns_label_1035(name):
        yield Finding((*path, "gatewayClassName"), f"its service would be {name}, which {wrong}")
    listeners = obj.spec.listeners
    if not 1 <= len(listeners) <= LISTENERS_MAX:
        yield Finding((*path, "listeners"), f"has {len(listeners)}; give 1 to {LISTENERS_MAX}")
    seen: set[str] = set()
    for index, listener in enumerate(listeners):
        here = (*path, "listeners", index)
        if listener.name in seen:
            yield Finding((*here, "name"), f"a second {names.quoted(listener.name)}; give another")
        seen.add(listener.name)
        yield from _listener(here, listener)
    if obj.is_federated and any(one.protocol != "HBONE" for one in listeners):
        text = "HBONE is for other trust domains, and alone at its Gateway; give it one of its own"
        yield Finding((*path, "listeners"), text)
    for index, address in enumerate(obj.spec.addresses):
        here = (*path, "addresses", index)
        if address.type != "IPAddress":
            yield Finding((*here, "type"), f"{address.type} is none here; give IPAddress")
        elif isinstance(found := names.address(address.value), str):
            yield Finding((*here, "value"), found)
    yield from labels((*path, "infrastructure", "labels"), obj.spec.infrastructure.labels)


def _listener(path: Path, listener: Listener) -> Iterator[Finding]:
    yield from said((*path, "name"), names.dns_subdomain(listener.name))
    yield from said((*path, "port"), names.port_number(listener.port))
    if listener.port in TAKEN:
        yield Finding((*path, "port"), f"{listener.port} is the mesh's own; give another")
    if listener.hostname:
        yield from said(
            (*path, "hostname"), names.dns_subdomain(listener.hostname.removeprefix("*."))
        )
    if listener.protocol == "TCP" and listener.hostname:
        yield Finding((*path, "hostname"), "TCP names no host; remove it")
    yield from _tls((*path, "tls"), listener)
    namespaces = listener.allowed_routes.namespaces
    here = (*path, "allowedRoutes", "namespaces", "selector")
    if (namespaces.from_ == "Selector") != (namespaces.selector is not None):
        yield Finding(here, "goes with from: Selector, and with nothing else")
    elif namespaces.selector is not None:
        yield from selector(here, namespaces.selector)


def _tls(path: Path, listener: Listener) -> Iterator[Finding]:
    tls, protocol = listener.tls, listener.protocol
    if protocol == "HBONE":
        if tls is not None:
            yield Finding(path, "HBONE is mTLS under SPIFFE IDs, up to the pod; remove it")
        return
    if protocol in ("HTTP", "TCP"):
        if tls is not None:
            yield Finding(path, f"means nothing to {protocol}; remove it, or give HTTPS or TLS")
        return
    if tls is None:
        yield Finding(path, f"is required for {protocol}; add it")
    elif tls.mode == "Passthrough" and protocol == "HTTPS":
        yield Finding((*path, "mode"), "HTTPS is terminated; give protocol: TLS to pass it through")
    elif tls.mode == "Passthrough" and tls.certificate_refs:
        yield Finding((*path, "certificateRefs"), "means nothing to what is passed through")
    elif tls.mode == "Terminate" and not tls.certificate_refs:
        yield Finding((*path, "certificateRefs"), "is required to terminate TLS; add one")
