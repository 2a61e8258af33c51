"""sixfold.dev/v1 GlobalName: one name over several regions. Ours: Kubernetes has no such object."""

from __future__ import annotations

from typing import Literal

from sixfold.model.meta import Object, ObjectMeta, written
from sixfold.model.workload import GRPCAction, HTTPGetAction, TCPSocketAction

Choice = Literal["Weighted", "Failover", "Geography"]


class ServiceReference(Object):
    """A Service of this instance."""

    name: str
    namespace: str = "default"


class RegionCheck(Object):
    """How the addresses of all regions are asked; exactly one action. Seconds throughout."""

    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 2
    failure_threshold: int = 3


class Region(Object):
    """Where the name leads: ``addresses`` are answered to the world, to pods unless there is a
    ``service``."""

    name: str
    addresses: list[str] = []
    service: ServiceReference | None = None
    weight: int = 1
    client_subnets: list[str] = []


class GlobalNameSpec(Object):
    hostname: str
    regions: list[Region]
    policy: Choice = "Weighted"
    ttl_seconds: int = 5
    health_check: RegionCheck | None = None


class GlobalName(Object):
    metadata: ObjectMeta
    spec: GlobalNameSpec
    api_version: str = written("sixfold.dev/v1")
    kind: str = written("GlobalName")
