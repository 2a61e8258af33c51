"""The catalogue in Consul's words: what its HTTP API answers.

Pure. Field names are Consul's. One node, this one; a service's name is ``web`` in the namespace
that is asked from, and ``web.shop`` for another namespace's. An instance whose address is empty
is at the node's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import msgspec

from sixfold.discovery.catalog import Catalogue, CheckState, Instance
from sixfold.discovery.registration import RegistrationError, split_name
from sixfold.model.config import Config

DATACENTER = "dc1"

Visible = Callable[[str], bool]


class Weights(msgspec.Struct):
    Passing: int = 1
    Warning: int = 1


class Tagged(msgspec.Struct):
    Address: str
    Port: int


class Node(msgspec.Struct):
    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: dict[str, str]
    Meta: dict[str, str]
    CreateIndex: int = 1
    ModifyIndex: int = 1


class Service(msgspec.Struct):
    """As in health and agent answers."""

    ID: str
    Service: str
    Tags: list[str]
    Address: str
    Meta: dict[str, str]
    Port: int
    Weights: Weights
    TaggedAddresses: dict[str, Tagged]
    EnableTagOverride: bool = False
    Datacenter: str = DATACENTER
    CreateIndex: int = 1
    ModifyIndex: int = 1


class HealthCheck(msgspec.Struct):
    Node: str
    CheckID: str
    Name: str
    Status: str
    Notes: str
    Output: str
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    Type: str
    Interval: str = ""
    Timeout: str = ""
    ExposedPort: int = 0
    Definition: dict[str, str] = {}
    CreateIndex: int = 1
    ModifyIndex: int = 1


class ServiceEntry(msgspec.Struct):
    Node: Node
    Service: Service
    Checks: list[HealthCheck]


class CatalogService(msgspec.Struct):
    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: dict[str, str]
    NodeMeta: dict[str, str]
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    ServiceAddress: str
    ServiceTaggedAddresses: dict[str, Tagged]
    ServiceWeights: Weights
    ServiceMeta: dict[str, str]
    ServicePort: int
    ServiceEnableTagOverride: bool = False
    CreateIndex: int = 1
    ModifyIndex: int = 1


@dataclass(frozen=True, slots=True)
class Sight:
    """The catalogue as one caller has it: from its namespace, what it may see of it."""

    catalogue: Catalogue
    config: Config
    namespace: str = "default"
    visible: Visible = lambda _: True

    def key(self, name: str) -> str:
        """The service that a name means, whether it may be seen or not; "" when it is no name."""
        try:
            label, namespace = split_name(name.lower(), self.namespace)
        except RegistrationError:
            return ""
        return f"{namespace}/{label}"

    def name(self, key: str) -> str:
        namespace, _, label = key.partition("/")
        return label if namespace == self.namespace else f"{label}.{namespace}"

    def instances(self, key: str = "") -> list[Instance]:
        """Those of one service, or all; the node's own last, as they come."""
        found = self.catalogue.instances
        if key:
            return list(found.get(key, ())) if self.visible(key) else []
        return [one for each in found if self.visible(each) for one in found[each]]

    def node(self) -> Node:
        config = self.config
        addresses = {"lan": str(config.host_ipv4), "lan_ipv4": str(config.host_ipv4)}
        addresses["lan_ipv6"] = str(config.host_ipv6)
        return Node(
            ID=str(uuid5(NAMESPACE_DNS, config.node)),
            Node=config.node,
            Address=str(config.host_ipv4),
            Datacenter=DATACENTER,
            TaggedAddresses=addresses,
            Meta={"consul-network-segment": "", "sixfold-instance": config.instance},
        )

    def node_check(self) -> HealthCheck:
        return HealthCheck(
            Node=self.config.node,
            CheckID="serfHealth",
            Name="Serf Health Status",
            Status="passing",
            Notes="",
            Output="Agent alive and reachable",
            ServiceID="",
            ServiceName="",
            ServiceTags=[],
            Type="",
        )

    def service(self, one: Instance) -> Service:
        index = self.catalogue.index_of(one.service)
        return Service(
            ID=one.id,
            Service=self.name(one.service),
            Tags=list(one.tags),
            Address=one.address,
            Meta=dict(one.meta),
            Port=one.port,
            Weights=Weights(one.weight, one.weight),
            TaggedAddresses=_virtual(one),
            CreateIndex=index,
            ModifyIndex=index,
        )

    def checks(self, one: Instance) -> list[HealthCheck]:
        return [self._check(one, check) for check in one.checks]

    def _check(self, one: Instance, check: CheckState) -> HealthCheck:
        index = self.catalogue.index_of(one.service)
        return HealthCheck(
            Node=self.config.node,
            CheckID=check.id,
            Name=check.name,
            Status=check.status,
            Notes=check.notes,
            Output=check.output,
            ServiceID=one.id,
            ServiceName=self.name(one.service),
            ServiceTags=list(one.tags),
            Type=check.type,
            CreateIndex=index,
            ModifyIndex=index,
        )

    def entry(self, one: Instance) -> ServiceEntry:
        return ServiceEntry(self.node(), self.service(one), [self.node_check(), *self.checks(one)])

    def catalog_service(self, one: Instance) -> CatalogService:
        node, index = self.node(), self.catalogue.index_of(one.service)
        return CatalogService(
            ID=node.ID,
            Node=node.Node,
            Address=node.Address,
            Datacenter=DATACENTER,
            TaggedAddresses=node.TaggedAddresses,
            NodeMeta=node.Meta,
            ServiceID=one.id,
            ServiceName=self.name(one.service),
            ServiceTags=list(one.tags),
            ServiceAddress=one.address,
            ServiceTaggedAddresses=_virtual(one),
            ServiceWeights=Weights(one.weight, one.weight),
            ServiceMeta=dict(one.meta),
            ServicePort=one.port,
            CreateIndex=index,
            ModifyIndex=index,
        )

    def services(self) -> dict[str, list[str]]:
        """Every service with the tags that its instances have; and Consul itself, as ever."""
        found: dict[str, list[str]] = {"consul": []}
        for key, instances in self.catalogue.instances.items():
            if self.visible(key):
                tags = dict.fromkeys(tag for one in instances for tag in one.tags)
                found[self.name(key)] = list(tags)
        return found


def tagged(instances: Iterable[Instance], tags: Iterable[str]) -> list[Instance]:
    """Those that have all of these tags, whatever their case."""
    wanted = {tag.lower() for tag in tags}
    return [one for one in instances if wanted <= {tag.lower() for tag in one.tags}]


def passing(instances: Iterable[Instance]) -> list[Instance]:
    return [one for one in instances if one.status == "passing"]


def _virtual(one: Instance) -> dict[str, Tagged]:
    return {"virtual": Tagged(*one.virtual)} if one.virtual else {}


def agent_self(config: Config, version: str) -> dict[str, Any]:
    """What ``/v1/agent/self`` says; clients look for the datacenter and the node's name."""
    return {
        "Config": {
            "Datacenter": DATACENTER,
            "PrimaryDatacenter": DATACENTER,
            "NodeName": config.node,
            "NodeID": str(uuid5(NAMESPACE_DNS, config.node)),
            "Server": True,
            "Revision": "",
            "Version": f"1.20.0+sixfold.{version}",
        },
        "Member": member(config),
        "Meta": {"consul-network-segment": ""},
    }


def member(config: Config) -> dict[str, Any]:
    return {
        "Name": config.node,
        "Addr": str(config.host_ipv4),
        "Port": 8301,
        "Tags": {"dc": DATACENTER, "role": "consul"},
        "Status": 1,
    }
