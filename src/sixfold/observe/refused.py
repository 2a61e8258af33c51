"""What was refused without any packet, as a flow: an identity, a system call. It was an attempt.

Pure.
"""

from __future__ import annotations

from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import HOST
from sixfold.model.reason import DropReason
from sixfold.model.refusal import NO_PROCESS, READ_ONLY, Refusal, call_name, capability_name
from sixfold.observe.counts import Kind
from sixfold.observe.join import EVENT_DROP
from sixfold.observe.names import IPAddress, Names, peer_at

# Instead of a capability that is lacking.
MET = {READ_ONLY: DropReason.READ_ONLY, NO_PROCESS: DropReason.NO_PROCESS}


def no_identity(
    names: Names, source: IPAddress | None, node: IPAddress, why: str, now_ns: int
) -> Flow:
    """``source``: address of the pod in whose network the process lives; None: the host's."""
    host = Peer(node, 0, HOST, labels=names.labels_of(HOST))
    peer = host if source is None or source not in names.owners else peer_at(names, source, 0)
    said = {"mesh": f"identity: {why}"}
    return Flow(now_ns, Verdict.ERROR, "egress", 0, peer, host, node=names.node, extra=said)


def refused_call(
    names: Names, pod: str, node: IPAddress, refused: Refusal, runs: str, boot_offset_ns: int
) -> Flow:
    """``pod``: "namespace/name", of whom the process is; ``runs``: its executable, "" if it is gone
    already."""
    met = MET.get(refused.capability)
    said = {
        "system_call": call_name(refused.system_call),
        **({} if met else {"capability": capability_name(refused.capability)}),
        **({"path": refused.path} if refused.path else {}),
        "process": f"{runs or refused.command} ({refused.pid})",
        "uid": str(refused.uid),
    }
    if refused.untold:
        said["untold"] = str(refused.untold)
    return Flow(
        refused.time_ns + boot_offset_ns,
        Verdict.DROPPED,
        "egress",
        0,
        _pod(names, pod, node),
        Peer(node, 0, HOST, labels=names.labels_of(HOST)),
        met or DropReason.CAPABILITY_DENIED,
        node=names.node,
        extra=said,
    )


def kind_of(flow: Flow) -> Kind:
    """As it is counted, beside events of packets."""
    return EVENT_DROP, flow.drop_reason, flow.source.identity, flow.destination.identity


def _pod(names: Names, pod: str, node: IPAddress) -> Peer:
    """At its address; one that has the host's network, or no name any more, at the node's."""
    namespace, _, name = pod.partition("/")
    for address, owner in names.owners.items():
        if (owner.namespace, owner.pod) == (namespace, name):
            return peer_at(names, address, 0)
    return Peer(node, 0, HOST, namespace, name, labels=names.labels_of(HOST))
