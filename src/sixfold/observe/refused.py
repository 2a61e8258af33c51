"""Who asked for an identity and was given none, as a flow: no packet, but an attempt.

Pure.
"""

from __future__ import annotations

from dataclasses import replace

from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import HOST
from sixfold.observe.names import IPAddress, Names


def no_identity(
    names: Names, source: IPAddress | None, node: IPAddress, why: str, now_ns: int
) -> Flow:
    """``source``: address of the pod in whose network the process lives; None: the host's."""
    host = Peer(node, 0, HOST, labels=names.labels_of(HOST))
    owner = names.owners.get(source) if source is not None else None
    peer = host
    if source is not None and owner is not None:
        peer = replace(
            host,
            address=source,
            identity=owner.identity,
            namespace=owner.namespace,
            pod=owner.pod,
            workload=owner.workload,
            labels=names.labels_of(owner.identity),
            endpoint_id=owner.endpoint_id,
        )
    said = {"mesh": f"identity: {why}"}
    return Flow(now_ns, Verdict.ERROR, "egress", 0, peer, host, node=names.node, extra=said)
