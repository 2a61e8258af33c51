"""Is this flow encrypted, and what says so?

Pure: from the plan of modes that the kernel has, or would have.
"""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.mesh.external import credentials, names_of
from sixfold.mesh.modes import Scopes
from sixfold.model.endpoint import Endpoint
from sixfold.model.mesh import Mode
from sixfold.model.spiffe import workload_id
from sixfold.model.world import World
from sixfold.policy.external import External, externals
from sixfold.policy.outward import leaving_of
from sixfold.policy.plan import PolicyPlan

PLAINTEXT, MTLS, BY_PROXY = "plaintext", "mTLS", "by proxy"


@dataclass(frozen=True, slots=True)
class MeshAnswer:
    """``outcome`` is "plaintext", "mTLS" or "by proxy"."""

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


def explain_outward(
    world: World, plan: PolicyPlan, source: Endpoint, port: int, name: str
) -> MeshAnswer:
    """What the proxy passes of a flow to the world that is let out by it only.

    name  that was asked about; "": an address
    """
    leaving = leaving_of(world, plan, source)
    seen, carried = (leaving.seen, leaving.carried) if leaving is not None else ((), ())
    names = sorted({it for one in seen if one.port == port for it in one.servers})
    hosts = sorted(host for host, number in carried if number == port)
    hosts = [name] if name in hosts else hosts
    external = {(one.host, one.port): one for one in externals(world)}
    said = [_begun(world, external[host, port]) for host in hosts if (host, port) in external]
    if names:
        said.append(f"TLS that names {', '.join(names)} passes")
    said.append("all else is closed" if said else "nothing of the pod's own passes")
    return MeshAnswer(BY_PROXY, "; ".join(said))


def _begun(world: World, one: External) -> str:
    assert one.tls is not None, "a rule is about its TLS"
    found = credentials(world, one)
    if isinstance(found, str):
        return f"requests to {one.host} are answered 502: {found}"
    return (
        f"requests to {one.host} go in TLS ({one.tls.mode}) to port {one.target_port}, whose "
        f"server proves to be {' or '.join(names_of(one))}, by DestinationRule {one.rule}"
    )
