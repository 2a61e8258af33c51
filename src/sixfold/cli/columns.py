"""What ``get`` prints of each kind: kubectl's columns, from the objects as the agent gives them.

Pure: an object in, cells out. ``wide`` columns come after the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sixfold.cli.output import age, duration
from sixfold.model.enforcement import ENFORCE, ENFORCEMENT

Item = Mapping[str, Any]
Cell = Callable[[Item], str]
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of one kind between NAME and AGE; ``wide`` ones, then ``last``, come after it."""

    cells: Mapping[str, Cell]
    wide: Mapping[str, Cell] = field(default_factory=dict)
    last: Mapping[str, Cell] = field(default_factory=dict)
    aged: bool = True

    def labelled(self) -> Columns:
        """With a last column of all labels, wide or not."""
        return replace(self, last={"LABELS": _all_labels})

    def header(self, *, wide: bool) -> list[str]:
        aged = ["AGE"] if self.aged else []
        return ["NAME", *self.cells, *aged, *self._after(wide=wide)]

    def row(self, item: Item, *, wide: bool) -> list[str]:
        cells = [item["metadata"]["name"], *(cell(item) for cell in self.cells.values())]
        if self.aged:
            cells.append(age(item["metadata"].get("creationTimestamp")))
        return cells + [cell(item) for cell in self._after(wide=wide).values()]

    def _after(self, *, wide: bool) -> Mapping[str, Cell]:
        return {**self.wide, **self.last} if wide else self.last


def _at(item: Item, *path: str, default: Any = None) -> Any:
    for step in path:
        if not isinstance(item, Mapping) or (item := item.get(step, {})) is None:
            return default
    return item if item != {} else default


def _text(*path: str, default: str = NONE) -> Cell:
    return lambda item: str(_at(item, *path, default=default))


def _number(*path: str) -> Cell:
    return _text(*path, default="0")


def _joined(*path: str, default: str = NONE) -> Cell:
    def cell(item: Item) -> str:
        return ",".join(map(str, _at(item, *path, default=()))) or default

    return cell


def _labels(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or NONE


def _all_labels(item: Item) -> str:
    return _labels(_at(item, "metadata", "labels"))


def label_selector(selector: Mapping[str, Any] | None) -> str:
    """A selector as kubectl prints it: ``app=web,tier in (a,b)``."""
    if selector is None:
        return NONE
    parts = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    for line in selector.get("matchExpressions", ()):
        key, values = line["key"], ",".join(line.get("values", ()))
        match line["operator"]:
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case _:
                parts.append(f"!{key}")
    return ",".join(parts) or NONE


def _enforcement(item: Item) -> str:
    return str(_at(item, "metadata", "annotations", ENFORCEMENT, default=ENFORCE))


def _relaxations(item: Item, state: str) -> Sequence[Item]:
    given = _at(item, "status", "relaxations", default=())
    return [one for one in given if one["state"] == state]


def _next_end(item: Item) -> str:
    left = [one["secondsLeft"] for one in _relaxations(item, "InForce")]
    return duration(min(left)) if left else NONE


def _issuers(item: Item) -> str:
    return ",".join(one["issuer"] for one in _at(item, "spec", "jwtRules", default=())) or NONE


def _pod_ready(pod: Item) -> str:
    statuses = [*_at(pod, "status", "containerStatuses", default=()), *_sidecars(pod)]
    total = len(_at(pod, "spec", "containers", default=())) + len(_sidecar_names(pod))
    return f"{sum(bool(status.get('ready')) for status in statuses)}/{total}"


def _sidecar_names(pod: Item) -> set[str]:
    inits = _at(pod, "spec", "initContainers", default=())
    return {each["name"] for each in inits if each.get("restartPolicy") == "Always"}


def _sidecars(pod: Item) -> Sequence[Item]:
    """Init containers that run as long as the pod count as its containers."""
    statuses = _at(pod, "status", "initContainerStatuses", default=())
    return [status for status in statuses if status["name"] in _sidecar_names(pod)]


def pod_status(pod: Item) -> str:
    """kubectl's STATUS: the reason that matters most, else the phase."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    inits = _inits_at_work(pod)
    for number, container in enumerate(inits):
        if not _finished(container):
            reason = _reason(container)
            counted = f"{number}/{len(inits)}"
            return f"Init:{counted if reason in ('', 'PodInitializing') else reason}"
    for container in reversed(status.get("containerStatuses", ())):
        if reason := _reason(container):
            return reason
    return str(status.get("reason") or status.get("phase") or "Pending")


def _inits_at_work(pod: Item) -> Sequence[Item]:
    """The init containers of a pod that still needs them: kubectl shows them first then."""
    status = pod.get("status", {})
    inits: Sequence[Item] = status.get("initContainerStatuses") or ()
    turned = {each["type"]: each["status"] for each in status.get("conditions", ())}
    done = turned.get("Initialized") == "True" or all(map(_finished, inits))
    return () if done else inits


def _finished(container: Item) -> bool:
    terminated = _at(container, "state", "terminated")
    return bool(container.get("ready")) or bool(terminated and not terminated.get("exitCode"))


def _reason(container: Item) -> str:
    waiting = _at(container, "state", "waiting", "reason", default="")
    terminated = _at(container, "state", "terminated", default={})
    if waiting or not terminated:
        return str(waiting)
    return str(terminated.get("reason") or f"ExitCode:{terminated.get('exitCode', 0)}")


def _restarts(pod: Item) -> str:
    statuses = [*_at(pod, "status", "containerStatuses", default=()), *_sidecars(pod)]
    if inits := _inits_at_work(pod):
        statuses = [*inits]
    count = sum(status.get("restartCount", 0) for status in statuses)
    ends = [_at(status, "lastState", "terminated", "finishedAt") for status in statuses]
    last = max(filter(None, ends), default=None)
    return f"{count} ({age(last)} ago)" if count and last else str(count)


def _pod_ips(pod: Item) -> str:
    ips = [entry.get("ip", "") for entry in _at(pod, "status", "podIPs", default=())]
    return ",".join(filter(None, ips)) or str(_at(pod, "status", "podIP", default=NONE))


def _desired(item: Item) -> str:
    return str(_at(item, "spec", "replicas", default=1))


def _ready_of_desired(item: Item) -> str:
    return f"{_number('status', 'readyReplicas')(item)}/{_desired(item)}"


def _containers(item: Item) -> str:
    containers = _at(item, "spec", "template", "spec", "containers", default=())
    return ",".join(container["name"] for container in containers) or NONE


def _job_status(job: Item) -> str:
    for condition in _at(job, "status", "conditions", default=()):
        if condition.get("status") == "True":
            return str(condition["type"])
    return "Running"


def _completions(job: Item) -> str:
    wanted = _at(job, "spec", "completions", default=1)
    return f"{_number('status', 'succeeded')(job)}/{wanted}"


def _job_duration(job: Item) -> str:
    start = _at(job, "status", "startTime")
    end = _at(job, "status", "completionTime")
    if not start:
        return ""
    if not end:
        return age(start)
    return duration((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _service_ip(service: Item) -> str:
    addresses = _at(service, "spec", "clusterIPs", default=()) or ()
    return str(addresses[0] if addresses else _at(service, "spec", "clusterIP", default=NONE))


def _service_ports(service: Item) -> str:
    ports = _at(service, "spec", "ports", default=()) or ()
    return ",".join(map(_service_port, ports)) or NONE


def _service_port(port: Item) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"


def _external_ip(service: Item) -> str:
    """kubectl's: addresses that a pool gave, then externalIPs; or the name of an alias."""
    kind = _at(service, "spec", "type", default="ClusterIP")
    if kind == "ExternalName":
        return str(_at(service, "spec", "externalName", default=NONE))
    given = _at(service, "status", "loadBalancer", "ingress", default=()) or ()
    found = [entry["ip"] for entry in given] if kind == "LoadBalancer" else []
    found += _at(service, "spec", "externalIPs", default=()) or ()
    return ",".join(found) or ("<pending>" if kind == "LoadBalancer" else NONE)


def _pool_blocks(pool: Item) -> str:
    blocks = _at(pool, "spec", "blocks", default=())
    return ",".join(it.get("cidr") or f"{it['start']}-{it.get('stop', '')}" for it in blocks)


def _slice_ports(item: Item) -> str:
    ports = item.get("ports") or ()
    return ",".join(str(port.get("port", "*")) for port in ports) or "<unset>"


def _slice_endpoints(item: Item) -> str:
    addresses = [a for endpoint in item.get("endpoints") or () for a in endpoint["addresses"]]
    more = f" + {len(addresses) - 3} more..." if len(addresses) > 3 else ""
    return ",".join(addresses[:3]) + more if addresses else "<unset>"


def _well_regions(item: Item) -> str:
    regions = _at(item, "status", "regions", default=())
    return f"{sum(one['inside'] or one['outside'] for one in regions)}/{len(regions)} well"


def _ip(version: str) -> Cell:
    def cell(item: Item) -> str:
        separator = ":" if version == "IPv6" else "."
        ips = _at(item, "status", "ips", default=())
        return next((ip for ip in ips if separator in ip), NONE)

    return cell


def _yes(*path: str) -> Cell:
    return lambda item: "true" if _at(item, *path) else "false"


REPLICAS_WIDE: dict[str, Cell] = {
    "CONTAINERS": _containers,
    "SELECTOR": lambda item: label_selector(_at(item, "spec", "selector", default={})),
}


def _route_parents(item: Item) -> str:
    parents = _at(item, "spec", "parentRefs", default=[])
    return ",".join(
        f"{one['name']}:{one['port']}" if one.get("port") else one["name"] for one in parents
    )


def _route_accepted(item: Item) -> str:
    return _conditions(_at(item, "status", "parents", default=[]))


def _conditions(parents: Iterable[Item]) -> str:
    """Why not, of the first condition that does not hold."""
    for parent in parents:
        for condition in parent["conditions"]:
            if condition["status"] != "True":
                return str(condition["reason"])
    return "True"


def _targets(item: Item) -> str:
    return ",".join(
        one["name"] + (f":{port}" if (port := one.get("sectionName")) else "")
        for one in _at(item, "spec", "targetRefs", default=[])
    )


def _entry_ports(item: Item) -> str:
    return ",".join(
        f"{one['number']}/{one['protocol']}" for one in _at(item, "spec", "ports", default=[])
    )


def _policy_accepted(item: Item) -> str:
    return _conditions(_at(item, "status", "ancestors", default=[]))


def _holds(wanted: str) -> Cell:
    """The status of a condition."""

    def cell(item: Item) -> str:
        found = _at(item, "status", "conditions", default=[])
        return next((str(one["status"]) for one in found if one["type"] == wanted), "Unknown")

    return cell


def _entries(*fields: str) -> Cell:
    return lambda item: str(sum(len(item.get(one) or {}) for one in fields))


def _gateway_addresses(item: Item) -> str:
    return ",".join(one["value"] for one in _at(item, "status", "addresses", default=[]))


COLUMNS: Mapping[str, Columns] = {
    "Namespace": Columns(
        {"STATUS": _text("status", "phase", default="Active")}, {"ENFORCEMENT": _enforcement}
    ),
    "Pod": Columns(
        {"READY": _pod_ready, "STATUS": pod_status, "RESTARTS": _restarts},
        {"IP": _pod_ips, "NODE": _text("spec", "nodeName")},
    ),
    "Deployment": Columns(
        {
            "READY": _ready_of_desired,
            "UP-TO-DATE": _number("status", "updatedReplicas"),
            "AVAILABLE": _number("status", "availableReplicas"),
        },
        REPLICAS_WIDE,
    ),
    "ReplicaSet": Columns(
        {
            "DESIRED": _desired,
            "CURRENT": _number("status", "replicas"),
            "READY": _number("status", "readyReplicas"),
        },
        REPLICAS_WIDE,
    ),
    "StatefulSet": Columns({"READY": _ready_of_desired}, {"CONTAINERS": _containers}),
    "DaemonSet": Columns(
        {
            "DESIRED": _number("status", "desiredNumberScheduled"),
            "CURRENT": _number("status", "currentNumberScheduled"),
            "READY": _number("status", "numberReady"),
            "UP-TO-DATE": _number("status", "updatedNumberScheduled"),
            "AVAILABLE": _number("status", "numberAvailable"),
        },
        REPLICAS_WIDE,
    ),
    "Job": Columns(
        {"STATUS": _job_status, "COMPLETIONS": _completions, "DURATION": _job_duration},
        {"CONTAINERS": _containers},
    ),
    "Service": Columns(
        {
            "TYPE": _text("spec", "type", default="ClusterIP"),
            "CLUSTER-IP": _service_ip,
            "EXTERNAL-IP": _external_ip,
            "PORT(S)": _service_ports,
        },
        {
            "CLUSTER-IPS": _joined("spec", "clusterIPs"),
            "SELECTOR": lambda item: _labels(_at(item, "spec", "selector")),
        },
    ),
    "NetworkPolicy": Columns(
        {
            "POD-SELECTOR": lambda item: label_selector(_at(item, "spec", "podSelector")),
            "ENFORCEMENT": _enforcement,
        },
        wide={"HITS": _text("status", "hits")},
    ),
    "ClusterNetworkPolicy": Columns(
        {
            "TIER": _text("spec", "tier"),
            "PRIORITY": _text("spec", "priority"),
            "ENFORCEMENT": _enforcement,
        }
    ),
    "AdminNetworkPolicy": Columns(
        {"PRIORITY": _text("spec", "priority"), "ENFORCEMENT": _enforcement}
    ),
    "BaselineAdminNetworkPolicy": Columns({"ENFORCEMENT": _enforcement}),
    "CiliumNetworkPolicy": Columns(
        {
            "ENDPOINT-SELECTOR": lambda item: label_selector(_at(item, "spec", "endpointSelector")),
            "ENFORCEMENT": _enforcement,
        }
    ),
    "CiliumClusterwideNetworkPolicy": Columns(
        {
            "ENDPOINT-SELECTOR": lambda item: label_selector(_at(item, "spec", "endpointSelector")),
            "ENFORCEMENT": _enforcement,
        }
    ),
    "CiliumLoadBalancerIPPool": Columns(
        {
            "DISABLED": _yes("spec", "disabled"),
            "IPS AVAILABLE": _number("status", "available"),
        },
        {"BLOCKS": _pool_blocks},
    ),
    "CiliumCIDRGroup": Columns({"CIDRS": _joined("spec", "externalCIDRs")}),
    "GlobalName": Columns(
        {
            "HOSTNAME": _text("spec", "hostname"),
            "POLICY": lambda item: str(_at(item, "spec", "policy", default="Weighted")),
            "REGIONS": _well_regions,
        },
    ),
    "Posture": Columns(
        {
            "BASE": _text("status", "base"),
            "IN FORCE": lambda item: str(len(_relaxations(item, "InForce"))),
            "ENDED": lambda item: str(len(_relaxations(item, "Ended"))),
            "NEXT END": _next_end,
        }
    ),
    "PeerAuthentication": Columns({"MODE": _text("spec", "mtls", "mode")}),
    "AuthorizationPolicy": Columns(
        {
            "ACTION": lambda item: str(_at(item, "spec", "action", default="ALLOW")),
            "ENFORCEMENT": _enforcement,
        }
    ),
    "RequestAuthentication": Columns({"ISSUERS": _issuers}),
    "HTTPRoute": Columns({"PARENTS": _route_parents, "ACCEPTED": _route_accepted}),
    "GRPCRoute": Columns({"PARENTS": _route_parents, "ACCEPTED": _route_accepted}),
    "ServiceEntry": Columns(
        {"HOSTS": _joined("spec", "hosts"), "PORTS": _entry_ports},
    ),
    "DestinationRule": Columns(
        {
            "HOST": _text("spec", "host"),
            "TLS": _text("spec", "trafficPolicy", "tls", "mode"),
            "ACCEPTED": _holds("Accepted"),
        }
    ),
    "BackendTLSPolicy": Columns({"TARGETS": _targets, "ACCEPTED": _policy_accepted}),
    "TLSRoute": Columns({"PARENTS": _route_parents, "ACCEPTED": _route_accepted}),
    "TCPRoute": Columns({"PARENTS": _route_parents, "ACCEPTED": _route_accepted}),
    "Secret": Columns({"TYPE": _text("type", default="Opaque"), "DATA": _entries("data")}),
    "ConfigMap": Columns({"DATA": _entries("data", "binaryData")}),
    "GatewayClass": Columns(
        {"CONTROLLER": _text("spec", "controllerName"), "ACCEPTED": _holds("Accepted")}
    ),
    "Gateway": Columns(
        {
            "CLASS": _text("spec", "gatewayClassName"),
            "ADDRESS": _gateway_addresses,
            "PROGRAMMED": _holds("Programmed"),
        }
    ),
    "ListenerSet": Columns(
        {
            "GATEWAY": _text("spec", "parentRef", "name"),
            "ACCEPTED": _holds("Accepted"),
            "PROGRAMMED": _holds("Programmed"),
        }
    ),
    "ReferenceGrant": Columns({}),
    "ClusterFederatedTrustDomain": Columns(
        {
            "TRUST DOMAIN": _text("spec", "trustDomain"),
            "ENDPOINT URL": _text("spec", "bundleEndpointURL"),
        }
    ),
    "ClusterSPIFFEID": Columns({"SELECTORS": _joined("spec", "workloadSelectorTemplates")}),
    "TrafficPolicy": Columns({"TARGETS": _targets, "ACCEPTED": _policy_accepted}),
    "EndpointSlice": Columns(
        {
            "ADDRESSTYPE": _text("addressType"),
            "PORTS": _slice_ports,
            "ENDPOINTS": _slice_endpoints,
        },
    ),
    "Endpoints": Columns(
        {
            "ID": _text("status", "id"),
            "IDENTITY": _text("status", "identity"),
            "IPV4": _ip("IPv4"),
            "IPV6": _ip("IPv6"),
            "READY": _yes("status", "ready"),
        },
        {
            "WORKLOAD": _text("status", "workload"),
            "IFINDEX": _text("status", "ifindex"),
            "NETNS": _text("status", "netns"),
            "NODE": _text("status", "node"),
            "LABELS": _all_labels,
        },
        aged=False,
    ),
}
