"""Small worlds for policy tests: raw cases in, model values out.

A case is plain YAML-like data, so that ``reference.py`` and the engine share nothing but it:
``{namespaces: {name: labels}, pods: [{pod, labels, ip, ports}], policies: [raw…], posture}``.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, cast

import msgspec

from sixfold.manifest import decode
from sixfold.model.ciliumpolicy import CiliumCIDRGroup, CiliumCIDRGroupSpec
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6, Config
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.identity import HOST, RESOLVER, WORLD, Identity, NamedPort, Subject
from sixfold.model.meta import ObjectMeta, namespace_labels
from sixfold.model.policies import Policy, policy_key
from sixfold.model.policy import NetworkPolicy
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.policy.decide import Party, decide, party_at, party_of
from sixfold.policy.plan import PolicyPlan

Case = Mapping[str, Any]
CYCLONUS_PORTS = tuple(
    {"name": f"serve-{port}-{protocol.lower()}", "protocol": protocol, "port": port}
    for port in (80, 81)
    for protocol in ("TCP", "UDP", "SCTP")
)


def policy(raw: Mapping[str, Any]) -> Policy:
    return cast(Policy, decode(raw, offline=True).object)


def unchecked(raw: Mapping[str, Any]) -> NetworkPolicy:
    """Blocks with host bits and the like, which ``manifest`` refuses."""
    return msgspec.convert(raw, NetworkPolicy)


def endpoint(pod: Mapping[str, Any], number: int, identity: int) -> Endpoint:
    namespace, name = pod["pod"].split("/")
    ports = tuple(
        sorted(
            NamedPort(p["name"], p["protocol"], p["port"])
            for p in pod.get("ports") or CYCLONUS_PORTS
        )
    )
    labels = tuple(sorted(pod["labels"].items()))
    addresses = [ip_address(text) for text in (pod.get("ip"), pod.get("ip6")) if text]
    return Endpoint(
        namespace=namespace,
        pod=name,
        workload=f"Pod/{name}",
        subject=Subject(namespace, pod.get("account", "default"), labels, ports),
        id=EndpointId(number),
        identity=Identity(identity),
        ipv4=next((one for one in addresses if one.version == 4), None),
        ipv6=next((one for one in addresses if one.version == 6), None),
        ifindex=number,
        ready=True,
        probe_ports=frozenset(pod.get("probes", ())),
    )


def world(case: Case, identities: dict[Subject, int] | None = None) -> World:
    """The model of a case; equal subjects share an identity."""
    known = {} if identities is None else identities
    endpoints = {}
    for number, pod in enumerate(case["pods"], 1):
        blank = endpoint(pod, number, 0)
        identity = known.setdefault(blank.subject, 256 + len(known))
        endpoints[pod["pod"]] = endpoint(pod, number, identity)
    policies = [
        unchecked(raw) if raw.get("kind", "NetworkPolicy") == "NetworkPolicy" else policy(raw)
        for raw in case["policies"] or ()
    ]
    services = [cast(Service, decode(raw).object) for raw in case.get("services", ())]
    return World(
        config=Config(
            posture=case.get("posture", "kubernetes"),
            ipblock_matches_pods=case.get("ipblock_matches_pods", True),
        ),
        namespaces={
            name: namespace_labels(name, labels) for name, labels in case["namespaces"].items()
        },
        endpoints=endpoints,
        policies={policy_key(one): one for one in policies},
        services={f"{one.metadata.namespace}/{one.metadata.name}": one for one in services},
        cidr_groups={
            name: CiliumCIDRGroup(
                ObjectMeta(name=name, labels=group["labels"]), CiliumCIDRGroupSpec(group["cidrs"])
            )
            for name, group in case.get("groups", {}).items()
        },
        domains={
            name: frozenset(map(ip_address, texts))
            for name, texts in case.get("domains", {}).items()
        },
    )


def parties(plan: PolicyPlan, here: World, side: Mapping[str, Any], version: int = 4) -> Party:
    """A side of a case as the engine sees it."""
    if "pod" in side:
        return party_of(plan, here.endpoints[side["pod"]], version)
    address = ip_address(side["ip"])
    if side.get("host"):
        return party_at(plan, HOST, address)
    if address in (RESOLVER_IPV4, RESOLVER_IPV6):
        return party_at(plan, RESOLVER, address)
    return party_at(plan, WORLD, address)


def passes(
    plan: PolicyPlan,
    here: World,
    flow: tuple[Mapping[str, Any], Mapping[str, Any], str, int],
    version: int = 4,
) -> bool:
    """Whether the compiled tables let a flow (source, destination, protocol, port) pass."""
    source, destination, protocol, port = flow
    return decide(
        plan,
        parties(plan, here, source, version),
        parties(plan, here, destination, version),
        PROTOCOL_NUMBERS[protocol],
        port,
    ).allow


def np(name: str, spec: Mapping[str, Any], namespace: str = "x") -> dict[str, Any]:
    """A raw NetworkPolicy."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": dict(spec),
    }


def pods(names: Iterable[str]) -> list[dict[str, Any]]:
    """Pods ``ns/name`` with label pod=name and addresses 192.168.<ns>.<name>."""
    found = []
    for name in names:
        namespace, pod = name.split("/")
        ip = f"192.168.{'xyz'.index(namespace) + 1}.{'abc'.index(pod) + 10}"
        found.append({"pod": name, "labels": {"pod": pod}, "ip": ip})
    return found


NINE = pods(f"{namespace}/{pod}" for namespace in "xyz" for pod in "abc")
NAMESPACES = {name: {"ns": name} for name in "xyz"}


def nine(*policies: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """The field's customary world: three namespaces of three pods each."""
    return {"namespaces": NAMESPACES, "pods": NINE, "policies": list(policies), **settings}
