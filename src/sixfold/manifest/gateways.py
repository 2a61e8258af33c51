"""What is wrong with a Gateway or a ListenerSet, beyond its shape; conflicts are their status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sixfold.manifest import names
from sixfold.manifest.metadata import labels, said, selector
from sixfold.manifest.path import Finding, Path
from sixfold.model.gateway import GROUP, Gateway, Listener, ListenerNamespaces, RouteNamespaces
from sixfold.model.listenerset import ListenerSet

LISTENERS_MAX = 64
TAKEN = (15001, 15002, 15003, 15004, 15005, 15008)  # where the proxy listens in every pod


def gateway(obj: Gateway | ListenerSet) -> Iterator[Finding]:
    """Findings about the spec."""
    path: Path = ("spec",)
    yield from _listeners((*path, "listeners"), obj.spec.listeners)
    if isinstance(obj, ListenerSet):
        yield from _set(obj)
        return
    name = obj.made.partition("/")[2]
    if wrong := names.dns_label_1035(name):
        yield Finding((*path, "gatewayClassName"), f"its service would be {name}, which {wrong}")
    here = (*path, "allowedListeners", "namespaces", "selector")
    yield from _selected(here, obj.spec.allowed_listeners.namespaces)
    if obj.is_federated and any(one.protocol != "HBONE" for one in obj.spec.listeners):
        text = "HBONE is for other trust domains, and alone at its Gateway; give it one of its own"
        yield Finding((*path, "listeners"), text)
    for index, address in enumerate(obj.spec.addresses):
        here = (*path, "addresses", index)
        if address.type != "IPAddress":
            yield Finding((*here, "type"), f"{address.type} is none here; give IPAddress")
        elif isinstance(found := names.address(address.value), str):
            yield Finding((*here, "value"), found)
    yield from labels((*path, "infrastructure", "labels"), obj.spec.infrastructure.labels)


def _set(obj: ListenerSet) -> Iterator[Finding]:
    here, parent = ("spec", "parentRef"), obj.spec.parent_ref
    if (parent.group, parent.kind) != (GROUP, "Gateway"):
        what = f"{parent.kind} of {parent.group or 'core'}"
        message = f"{what} has no listeners; give a Gateway"
        yield Finding((*here, "kind"), message, also=((*here, "group"),))
    yield from said((*here, "name"), names.dns_subdomain(parent.name))
    for index, listener in enumerate(obj.spec.listeners):
        if listener.protocol == "HBONE":
            text = "HBONE is alone at its Gateway; give the Gateway that listener"
            yield Finding(("spec", "listeners", index, "protocol"), text)


def _listeners(path: Path, listeners: Sequence[Listener]) -> Iterator[Finding]:
    if not 1 <= len(listeners) <= LISTENERS_MAX:
        yield Finding(path, f"has {len(listeners)}; give 1 to {LISTENERS_MAX}")
    seen: set[str] = set()
    for index, listener in enumerate(listeners):
        here = (*path, index)
        if listener.name in seen:
            yield Finding((*here, "name"), f"a second {names.quoted(listener.name)}; give another")
        seen.add(listener.name)
        yield from _listener(here, listener)


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
    here = (*path, "allowedRoutes", "namespaces", "selector")
    yield from _selected(here, listener.allowed_routes.namespaces)


def _selected(here: Path, namespaces: RouteNamespaces | ListenerNamespaces) -> Iterator[Finding]:
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
