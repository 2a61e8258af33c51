"""What is made for a Gateway: a pod to listen in, and a service that leads to it.

Pure. The pod's one container sleeps: it holds the network namespace, the identity and the address
that policy speaks of; the node's proxy listens there. Both are made of the Gateway and the sets of
listeners that it lets in, so what they should be is known at any time. Names and labels: Gateway
API, GEP-1762.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sixfold.model.gateway import CLASS_LABEL, GATEWAY_LABEL, Gateway
from sixfold.model.listenerset import ListenerSet
from sixfold.model.pool import WANTED_IPS

Raw = dict[str, Any]


def made_for(gateway: Gateway, sets: Iterable[ListenerSet] = ()) -> tuple[Raw, Raw]:
    """The pod and the service, as one would write them."""
    meta = gateway.metadata
    own = {GATEWAY_LABEL: meta.name, CLASS_LABEL: gateway.spec.gateway_class_name}
    given = gateway.spec.infrastructure
    name = gateway.made.partition("/")[2]
    owner = {
        "apiVersion": gateway.api_version,
        "kind": gateway.kind,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
    }
    metadata = {
        "name": name,
        "namespace": meta.namespace,
        "labels": {**given.labels, **own},
        "ownerReferences": [owner],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "annotations": given.annotations},
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "gateway", "command": ["sleep", "inf"]}],
        },
    }
    annotations = dict(given.annotations)
    if gateway.spec.addresses:
        annotations[WANTED_IPS[0]] = ",".join(one.value for one in gateway.spec.addresses)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**metadata, "annotations": annotations},
        "spec": {
            "type": "LoadBalancer",
            "selector": own,
            "ipFamilyPolicy": "PreferDualStack",
            "allocateLoadBalancerNodePorts": False,
            "ports": list(_ports([gateway, *sets])),
        },
    }
    return pod, service


def _ports(owners: Iterable[Gateway | ListenerSet]) -> Iterator[Raw]:
    """One for each port, called after its number: listeners of a port share it."""
    for port in dict.fromkeys(one.port for owner in owners for one in owner.spec.listeners):
        yield {"name": f"port-{port}", "port": port}


def differs(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether something of what is wanted is otherwise; what the store added does not count."""
    for name, value in wanted.items():
        there = stored.get(name)
        if there == value or (value == {} and there is None):
            continue
        if name == "labels" or not (isinstance(value, Mapping) and isinstance(there, Mapping)):
            return True
        if differs(value, there):
            return True
    return False
