"""Who is behind an endpoint, by SPIFFE ID, for those that are told of services.

Pure. A name, not a proof: what a peer shows when it is dialled is what counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from sixfold.model.service import EndpointSlice, SliceEndpoint
from sixfold.model.spiffe import workload_id
from sixfold.model.world import World


class SpiffeIds:
    """IDs of the pods of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def of(self, namespace: str, endpoint: SliceEndpoint) -> str:
        """The ID of the pod behind an endpoint; "" when it is none of ours."""
        target = endpoint.target_ref
        if target is None or target.kind != "Pod":
            return ""
        pod = self._world.endpoints.get(f"{namespace}/{target.name}")
        if pod is None:
            return ""
        domain, account = self._world.config.trust_domain, pod.subject.service_account
        return str(workload_id(domain, namespace, account))

    def of_all(self, namespace: str, slices: Iterable[EndpointSlice]) -> str:
        """The one ID that all endpoints share; "" when there is no such."""
        ids = {self.of(namespace, one) for slice_ in slices for one in slice_.endpoints}
        return ids.pop() if len(ids) == 1 else ""
