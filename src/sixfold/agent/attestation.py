"""Which workload is this process? What the kernel says of it, against what the store knows.

A process is its pod's when it lives in that pod's control group: the shim puts it there before it
runs, and none of a pod's processes can leave. Names, addresses and users prove nothing here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sixfold.agent.agent import Agent
from sixfold.errors import UnavailableError
from sixfold.host.doors import namespace_at
from sixfold.host.paths import Paths, cgroup_root
from sixfold.host.peer import Peer, peer_of
from sixfold.model.spiffe import workload_id
from sixfold.model.subject import service_account_of
from sixfold.observe.refused import no_identity
from sixfold.serve.workload_api import Socket, Workload, WorkloadApi
from sixfold.store import Objects
from sixfold.trust.audit_finding import SvidSeen
from sixfold.trust.authority import pem
from sixfold.trust.bundle import document, key_set, roots_pem
from sixfold.trust.keyring import Keyring

log = logging.getLogger(__name__)


Refused = Callable[[Peer, str], None]  # who, and why


class Attestation:
    """Of the processes on this host."""

    def __init__(self, paths: Paths, objects: Objects, trust_domain: str, refused: Refused) -> None:
        """``refused``: is told of every process that asks and is of no pod."""
        self._refused = refused
        self._pods = f"/{(paths.cgroup / 'pods').relative_to(cgroup_root())}/"
        self._objects = objects
        self._trust_domain = trust_domain

    def attest(self, sock: Socket) -> Workload | None:
        """The workload at the other end; None when it is of no pod of ours."""
        try:
            peer = peer_of(sock)
        except UnavailableError as error:
            log.info("workload API: %s", error)
            return None
        if not peer.cgroup.startswith(self._pods):
            why = f"process {peer.pid} (uid {peer.uid}) is of no pod"
            log.warning("workload API: %s", why)
            self._refused(peer, why)
            return None
        uid = peer.cgroup.removeprefix(self._pods).partition("/")[0]
        for stored in self._objects.of("Pod").values():
            if stored.uid == uid:
                meta, account = stored.object.metadata, service_account_of(stored.object.spec)
                id_ = workload_id(self._trust_domain, meta.namespace, account)
                return Workload(uid, f"{meta.namespace}/{meta.name}", id_)
        return None

    def living(self, uids: Iterable[str]) -> set[str]:
        """Those of the pods that are still there."""
        return {stored.uid for stored in self._objects.of("Pod").values()} & set(uids)


def told_by(agent: Agent) -> Refused:
    """In the flow log: from the pod in whose network the process is, or from the host."""

    def tell(peer: Peer, why: str) -> None:
        number = namespace_at(Path(f"/proc/{peer.pid}/ns/net"))
        endpoints = agent.plans.world.endpoints.values() if agent.plans is not None else ()
        here = next(
            (one for one in endpoints if one.netns and namespace_at(Path(one.netns)) == number),
            None,
        )
        source = (here.ipv4 or here.ipv6) if here is not None else None
        agent.tell(no_identity(agent.names, source, agent.config.host_ipv4, why, time.time_ns()))

    return tell


def svids_seen(api: WorkloadApi, attestation: Attestation) -> tuple[SvidSeen, ...]:
    """The same for an audit."""
    api.keep(attestation.living(api.issued))
    now = datetime.now(UTC)
    return tuple(
        SvidSeen(
            workload.pod,
            pem(svid.certificate).decode(),
            followed=bool(api.followers[uid]),
            overdue_s=max(0.0, (now - svid.renew_at).total_seconds()),
        )
        for uid, (workload, svid) in sorted(api.issued.items())
    )


def list_svids(api: WorkloadApi, attestation: Attestation, keyring: Keyring) -> dict[str, Any]:
    """What is in use, and what verifies it."""
    api.keep(attestation.living(api.issued))
    svids = [
        {
            "pod": workload.pod,
            "spiffe_id": str(svid.id),
            "serial": f"{svid.certificate.serial_number:x}",
            "expires": svid.expires.isoformat(),
            "authority": svid.authority,
        }
        for workload, svid in sorted(api.issued.values(), key=lambda one: one[0].pod)
    ]
    return {
        "trust_domain": keyring.trust_domain,
        "bundle": roots_pem(keyring).decode(),
        "jwks": key_set(keyring).decode(),
        "document": document(keyring).decode(),
        "svids": svids,
    }
