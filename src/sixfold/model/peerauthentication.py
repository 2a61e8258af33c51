"""security.istio.io PeerAuthentication, as written: whether TCP from other pods needs mTLS.

Without a selector it is for its namespace, and in one of ``ROOT_NAMESPACES`` for all of them.
Source: istio.io/latest/docs/reference/config/security/peer_authentication.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sixfold.model.gateway import GATEWAY_LABEL
from sixfold.model.mesh import Mode
from sixfold.model.meta import Object, ObjectMeta, written

PEER_AUTHENTICATION = "PeerAuthentication"
ROOT_NAMESPACES = frozenset({"sixfold-system", "istio-system"})

Word = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]
WORDS: dict[Word, Mode | None] = {
    "UNSET": None,  # what the next wider scope says
    "DISABLE": Mode.DISABLED,
    "PERMISSIVE": Mode.PERMISSIVE,
    "STRICT": Mode.STRICT,
}


class WorkloadSelector(Object):
    """Every label must be there; none selects the whole namespace."""

    match_labels: dict[str, str] = {}


class GatewayTarget(Object):
    """A Gateway of the same namespace."""

    name: str
    kind: str
    group: str = ""
    namespace: str = ""


class Selecting(Object):
    """What is for workloads that its ``spec.selector`` means; all three of Istio's are.

    Two of them may be for Gateways, instead (``spec.targetRefs``).
    """

    if TYPE_CHECKING:  # of those who inherit it
        metadata: ObjectMeta
        spec: Any

    @property
    def labels(self) -> dict[str, str]:
        """What it selects; none: all of its namespace."""
        return self.spec.selector.match_labels if self.spec.selector is not None else {}

    @property
    def gateways(self) -> frozenset[str]:
        """Names of those that it is for, and nothing else."""
        return frozenset(one.name for one in getattr(self.spec, "target_refs", ()))

    @property
    def namespace(self) -> str | None:
        """Whose workloads it is for; None: everybody's."""
        here = self.metadata.namespace
        return None if here in ROOT_NAMESPACES else here

    def selects(self, namespace: str, labels: Mapping[str, str]) -> bool:
        if self.gateways:
            own = namespace == self.metadata.namespace
            return own and labels.get(GATEWAY_LABEL) in self.gateways
        return self.namespace in (None, namespace) and self.labels.items() <= labels.items()


class MutualTLS(Object):
    mode: Word = "UNSET"


class PeerAuthenticationSpec(Object):
    """``port_level_mtls`` by the workload's own port."""

    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[str, MutualTLS] = {}


class PeerAuthentication(Selecting):
    metadata: ObjectMeta
    spec: PeerAuthenticationSpec = msgspec.field(default_factory=PeerAuthenticationSpec)
    api_version: str = written("security.istio.io/v1")
    kind: str = written(PEER_AUTHENTICATION)

    @property
    def mode(self) -> Mode | None:
        return WORDS[self.spec.mtls.mode] if self.spec.mtls is not None else None

    @property
    def wants_mtls(self) -> bool:
        """Whether it may want it of anybody."""
        ports = (WORDS[one.mode] for one in self.spec.port_level_mtls.values())
        return bool(self.mode or any(ports))
