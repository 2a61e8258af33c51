"""Is this flow encrypted, and what says so?

Pure: from the plan of modes that the kernel has, or would have.
"""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.mesh.modes import Scopes
from sixfold.model.endpoint import Endpoint
from sixfold.model.mesh import Mode
from sixfold.model.spiffe import workload_id
from sixfold.model.world import World

PLAINTEXT, MTLS = "plaintext", "mTLS"


@dataclass(frozen=True, slots=True)
class MeshAnswer:
    """``outcome`` is "plaintext" or "mTLS"."""

    outcome: str
    text: str


def explain_mesh(
    world: World,
    source: Endpoint,
    destination: Endpoint,
    protocol: str,
    port: int,
    *,
    always: bool = False,
) -> MeshAnswer:
    """What the mesh does with a flow from one workload to another that policy allows.

    always  it is a request that a Gateway sends
    """
    scopes = Scopes(world)
    subjects = source.subject, destination.subject
    ids = " → ".join(
        str(workload_id(world.config.trust_domain, one.namespace, one.service_account))
        for one in subjects
    )
    if always:
        return MeshAnswer(MTLS, f"{ids}, as all requests of Gateways")
    if not world.has_mesh:
        return MeshAnswer(PLAINTEXT, f"mTLS is off: {world.config.mtls_by}")
    if protocol != "TCP":
        return MeshAnswer(PLAINTEXT, f"{protocol} is in no tunnel: policy by address only")
    if source.key == destination.key:
        return MeshAnswer(PLAINTEXT, "it does not leave the pod")
    mode, by = scopes.of(destination).of(port)
    if mode == Mode.DISABLED:
        return MeshAnswer(PLAINTEXT, f"port {port} of {destination.key} is disabled by {by}")
    also = "" if mode == Mode.STRICT else "; plaintext from outside the mesh is let in, too"
    return MeshAnswer(MTLS, f"{ids}, {mode.name.lower()} by {by}{also}")
