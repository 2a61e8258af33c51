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
    world: World, source: Endpoint, destination: Endpoint, protocol: str, port: int
) -> MeshAnswer:
    """What the mesh does with a flow from one workload to another that policy allows."""
    scopes = Scopes(world)
    if not world.has_mesh:
        return MeshAnswer(PLAINTEXT, f"mTLS is off: --mtls {world.config.mtls}")
    if protocol != "TCP":
        return MeshAnswer(PLAINTEXT, f"{protocol} is in no tunnel: policy by address only")
    if source.key == destination.key:
        return MeshAnswer(PLAINTEXT, "it does not leave the pod")
    mode, by = scopes.of(destination).of(port)
    if mode == Mode.DISABLED:
        return MeshAnswer(PLAINTEXT, f"port {port} of {destination.key} is disabled by {by}")
    domain = world.config.trust_domain
    subjects = source.subject, destination.subject
    ids = " → ".join(
        str(workload_id(domain, one.namespace, one.service_account)) for one in subjects
    )
    also = "" if mode == Mode.STRICT else "; plaintext from outside the mesh is let in, too"
    return MeshAnswer(MTLS, f"{ids}, {mode.name.lower()} by {by}{also}")
