"""spire.spiffe.io/v1alpha1 ClusterSPIFFEID: which processes of a pod are given its identity."""

from __future__ import annotations

import msgspec

from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written

TEMPLATE = (
    "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
)


class ClusterSPIFFEIDSpec(Object):
    """Selectors of pods are absent for all; ``workload_selector_templates`` must all hold."""

    spiffe_id_template: str = msgspec.field(name="spiffeIDTemplate")
    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None
    workload_selector_templates: list[str] = []


class ClusterSPIFFEID(Object):
    metadata: ObjectMeta
    spec: ClusterSPIFFEIDSpec
    api_version: str = written("spire.spiffe.io/v1alpha1")
    kind: str = written("ClusterSPIFFEID")
