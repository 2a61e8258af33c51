"""Who asked for an identity and was given none, as a flow: no packet, but an attempt.

Pure.
"""

from __future__ import annotations

from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import HOST
from sixfold.observe.names import IPAddress, Names, peer_at


def no_identity(
    names: Names, source: IPAddress | None, node: IPAddress, why: str, now_ns: int
) -> Flow:
    """``source``: address of the pod in whose network the process lives; None: the host's."""
    host = Peer(node, 0, HOST, labels=names.labels_of(HOST))
    peer = host if source is None or source not in names.owners else peer_at(names, source, 0)
    said = {"mesh": f"identity: {why}"}
    return Flow(now_ns, Verdict.ERROR, "egress", 0, peer, host, node=names.node, extra=said)
