"""Admission: what may enter the store, and with which defaults.

All problems of one apply are found before anything is written: an apply is taken whole or not
at all. Cluster addresses are handed out here, as the Kubernetes API server does.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence, Set
from ipaddress import ip_address
from typing import Any

import msgspec

from sixfold.agent.addresses import Addresses
from sixfold.agent.ways_in import admit_ways_in
from sixfold.errors import ManifestError, Problem, SixfoldError
from sixfold.manifest import Loaded, requires_runtime
from sixfold.model.algorithm import DRAIN, is_drained
from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress
from sixfold.model.domain import plain_name
from sixfold.model.globalname import GlobalName
from sixfold.model.kinds import Resource
from sixfold.model.meta import Key
from sixfold.model.service import EndpointSlice, Service, ServiceSpec
from sixfold.model.serviceentry import SERVICE_ENTRY, ServiceEntry
from sixfold.store import Objects, Stored
from sixfold.workloads.pod_state import controller_of

# Fields that Kubernetes does not let change either; delete and create the object instead.
IMMUTABLE = {
    "Pod": (("spec",),),
    "Deployment": (("spec", "selector"),),
    "ReplicaSet": (("spec", "selector"),),
    "DaemonSet": (("spec", "selector"),),
    "StatefulSet": (("spec", "selector"), ("spec", "serviceName")),
    "Job": (("spec", "template"), ("spec", "completions")),
}


def admit(
    loaded: Sequence[Loaded], objects: Objects, addresses: Addresses, now_s: float
) -> list[tuple[Key, dict[str, Any]]]:
    """What to put, defaults filled in, namespaces first; takes addresses for it.

    Part of a transaction of the store. Raises ManifestError with all problems.
    """
    written = {item.key for item in loaded}
    problems = [problem for item in loaded for problem in _problems(item, objects, written)]
    admitted = [*_missing_namespaces(loaded, objects)]
    services: list[tuple[Loaded, dict[str, Any]]] = []
    for item in loaded:
        raw = {**item.raw, "metadata": dict(item.raw.get("metadata", {}))}
        if item.key.namespace:
            raw["metadata"]["namespace"] = item.key.namespace
        problems += _dialled(item, addresses)
        if item.key.kind == "Service":
            try:
                _service_addresses(item, raw, objects, addresses, now_s)
            except SixfoldError as error:
                problems.append(_problem(item, "spec.clusterIP", str(error)))
            services.append((item, raw))
        if item.key.kind == "Secret":
            _encode(raw)
        if item.key.kind == "Pod":
            _keep_drained(item.key, raw, objects)
        admitted.append((item.key, raw))
    problems += _taken_hostnames(loaded, objects, addresses.config)
    problems += admit_ways_in(services, loaded, objects, addresses.config)
    if problems:
        raise ManifestError(problems)
    return admitted


def _encode(raw: dict[str, Any]) -> None:
    """What is written as plain text is kept as the rest is."""
    plain = raw.pop("stringData", None) or {}
    encoded = {name: b64encode(text.encode()).decode() for name, text in plain.items()}
    raw["data"] = {**(raw.get("data") or {}), **encoded}
    raw.setdefault("type", "Opaque")


def _keep_drained(key: Key, raw: dict[str, Any], objects: Objects) -> None:
    """Who applies a manifest again did not write ``lb drain`` there, and does not mean to end it:
    only "false", which ``lb drain --undo`` sends, does. It is not kept."""
    annotations = dict(raw["metadata"].get("annotations") or {})
    old = objects.get(key)
    if annotations.get(DRAIN) == "false":
        del annotations[DRAIN]
    elif DRAIN not in annotations and old and is_drained(old.object.metadata.annotations):
        annotations[DRAIN] = "true"
    else:
        return
    raw["metadata"]["annotations"] = annotations


def _problems(item: Loaded, objects: Objects, written: Set[Key]) -> Iterable[Problem]:
    yield from requires_runtime(item.object, item.source, item.line)
    owner = controller_of(item.object.metadata)
    if owner is not None and owner not in written and objects.get(owner) is None:
        yield _problem(
            item, "metadata.ownerReferences", f"{owner} is not there; leave ownerReferences out"
        )
    old = objects.get(item.key)
    home = objects.get(Key("Namespace", "", item.key.namespace))
    for ending in (home, old):
        if ending is not None and ending.deleting:
            message = f"{ending.key} is being deleted; try again when it is gone"
            yield _problem(item, "metadata.name", message)
    if old is None:
        return
    for path in IMMUTABLE.get(item.key.kind, ()):
        if _fixed(old.object, path) != _fixed(item.object, path):
            yield _problem(
                item, ".".join(path), f"is immutable; delete {item.key} first, then apply again"
            )


def _dialled(item: Loaded, addresses: Addresses) -> Iterable[Problem]:
    """A service address is translated once: what it stands for would not be found."""
    served: dict[str, str] = {}
    if isinstance(item.object, EndpointSlice):
        for index, endpoint in enumerate(item.object.endpoints):
            served[f"endpoints[{index}].addresses[0]"] = endpoint.addresses[0]
    elif isinstance(item.object, ServiceEntry):
        for index, one in enumerate(item.object.spec.endpoints):
            served[f"spec.endpoints[{index}].address"] = one.address
    for path, text in served.items():
        if addresses.of_services(ip_address(text)):
            message = f"{text} is in the range of services; give addresses of who serves"
            yield _problem(item, path, message)


def _taken_hostnames(
    loaded: Sequence[Loaded], objects: Objects, config: Config
) -> Iterable[Problem]:
    """A hostname that we answer is of one object: which of two is meant nobody could say."""
    written = {item.key for item in loaded}
    holders = {
        hostname: key
        for kind in ("GlobalName", SERVICE_ENTRY)
        for key, stored in objects.of(kind).items()
        if key not in written and not stored.deleting
        for hostname in _hostnames(stored.object).values()
    }
    for item in loaded:
        for path, hostname in _hostnames(item.object).items():
            holder = holders.setdefault(hostname, item.key)
            if holder != item.key:
                yield _problem(item, path, f"{hostname} is that of {holder}; give another")
            if isinstance(item.object, ServiceEntry) and config.answers(hostname):
                message = f"{hostname} lies in a zone of the cluster, which answers it"
                yield _problem(item, path, f"{message}; give another")


def _hostnames(obj: Resource) -> dict[str, str]:
    """By path: names that are answered with what the object says."""
    if isinstance(obj, GlobalName):
        return {"spec.hostname": plain_name(obj.spec.hostname)}
    if isinstance(obj, ServiceEntry) and obj.spec.resolution == "STATIC":
        return {f"spec.hosts[{at}]": plain_name(one) for at, one in enumerate(obj.spec.hosts)}
    return {}


def _fixed(obj: Resource, path: tuple[str, ...]) -> Any:
    """What must not change there: defaults written out change nothing, nor does our one node."""
    value = _at(msgspec.to_builtins(obj), path)  # leaves defaults out
    if path == ("spec",):
        value.pop("nodeName", None)
    return value


def _missing_namespaces(
    loaded: Sequence[Loaded], objects: Objects
) -> Iterable[tuple[Key, dict[str, Any]]]:
    """Namespaces that objects name but nobody wrote: they are made, with no labels of their own."""
    written = {item.key.name for item in loaded if item.key.kind == "Namespace"}
    named = {item.key.namespace for item in loaded if item.key.namespace}
    for name in sorted(named - written):
        key = Key("Namespace", "", name)
        if objects.get(key) is None:
            yield key, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _service_addresses(
    item: Loaded,
    raw: dict[str, Any],
    objects: Objects,
    addresses: Addresses,
    now_s: float,
) -> None:
    """Fill clusterIP, clusterIPs and ipFamilies."""
    spec, owner = dict(raw.get("spec") or {}), str(item.key)
    raw["spec"] = spec
    assert isinstance(item.object, Service)
    spec.setdefault("type", "ClusterIP")
    if item.object.spec.type == "ExternalName":
        addresses.release(owner, now_s)
        return
    policy, families = _stack(item.object.spec, objects.get(item.key))
    if item.object.spec.headless:
        spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
    else:
        chosen = _wanted(item, spec, objects)
        if chosen and item.object.spec.ip_families and _family(chosen[0]) != families[0]:
            kept = _family(chosen[0])
            raise SixfoldError(f"its first family is {kept} and stays; delete {item.key} first")
        if policy == "SingleStack":
            for address in chosen[1:]:
                addresses.release_service(address, owner, now_s)
            del chosen[1:]
            families = families[:1]
        for address in chosen:
            addresses.claim_service(address, owner, now_s)
        chosen += [
            addresses.allocate_service(family, owner, now_s)
            for family in _order(families, chosen)[len(chosen) :]
        ]
        spec["clusterIPs"] = [str(address) for address in chosen]
        spec["clusterIP"] = spec["clusterIPs"][0]
        families = [_family(address) for address in chosen]
    spec["ipFamilies"], spec["ipFamilyPolicy"] = families, policy


def _wanted(item: Loaded, spec: Mapping[str, Any], objects: Objects) -> list[IPAddress]:
    """Addresses that the manifest asks for, or that the service has already; those stay."""
    wanted = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    old = objects.get(item.key)
    kept = old.raw["spec"].get("clusterIPs", []) if old else []
    if kept and kept != ["None"]:
        if wanted and wanted[0] != kept[0]:
            raise SixfoldError(f"is immutable: it is {kept[0]}; delete {item.key} first")
        wanted = kept
    return [ip_address(text) for text in wanted]


def _family(address: IPAddress) -> str:
    return "IPv4" if address.version == 4 else "IPv6"


def _stack(spec: ServiceSpec, old: Stored | None) -> tuple[str, list[str]]:
    """Policy and families, in order: core/v1 defaulting, on a dual-stack cluster.

    What is not said stays as it was; of a new service it is one family, but for a headless one
    without selector, whose endpoints may be of any.
    """
    policy = spec.ip_family_policy or (old.object.spec.ip_family_policy if old else None)
    if policy is None:
        anybody = spec.headless and not spec.selector
        policy = "RequireDualStack" if anybody else "SingleStack"
    given = spec.cluster_ips or [spec.cluster_ip]
    families: list[str] = list(spec.ip_families) or [
        _family(ip_address(text)) for text in given if text not in ("", "None")
    ]
    families = families or ["IPv4"]
    if policy != "SingleStack":
        families += [family for family in ("IPv4", "IPv6") if family not in families]
    return policy, families


def _order(families: list[str], chosen: list[IPAddress]) -> list[str]:
    """Families with those of the chosen addresses first."""
    first = [_family(address) for address in chosen]
    return first + [family for family in families if family not in first] if first else families


def _at(raw: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        raw = raw.get(name) if isinstance(raw, dict) else None
    return raw


def _problem(item: Loaded, path: str, message: str) -> Problem:
    return Problem(item.source, item.line, path, message)
