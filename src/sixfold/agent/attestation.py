"""Which workload is this process? What the kernel says of it, against what the store knows.

A process is its pod's when it lives in that pod's control group and network: the shim puts it there
before it runs, and none of a pod's processes can leave the group. Names and addresses prove nothing
here. Where a ClusterSPIFFEID picks the pod, user and program must fit its selectors, too.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sixfold.agent.agent import Agent
from sixfold.errors import UnavailableError
from sixfold.host.doors import command, control_group, namespace_at, namespaces
from sixfold.host.executables import traits_of
from sixfold.host.paths import Paths, cgroup_root
from sixfold.host.peer import Peer, peer_of, peer_traits
from sixfold.model.meta import Key, namespace_labels
from sixfold.model.spiffe import workload_id
from sixfold.model.subject import service_account_of
from sixfold.observe.refused import no_identity
from sixfold.serve.workload_api import Socket, Workload, WorkloadApi
from sixfold.store import Objects, Stored
from sixfold.trust.attested import Selectors, alternatives, lacking
from sixfold.trust.audit_finding import SvidSeen, UnfitSeen
from sixfold.trust.authority import pem
from sixfold.trust.bundle import document, key_set, roots_pem
from sixfold.trust.keyring import Keyring

log = logging.getLogger(__name__)

KIND = "ClusterSPIFFEID"
OWN_NETWORK = Path("/proc/self/ns/net")


Refused = Callable[[Peer, str], None]  # who, and why


class Attestation:
    """Of the processes on this host."""

    def __init__(self, paths: Paths, objects: Objects, trust_domain: str, refused: Refused) -> None:
        """``refused``: is told of every process that asks and is given nothing."""
        self._refused = refused
        self._paths = paths
        self._known: list[Stored] = []
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
        uid = self.pod_of(peer.cgroup)
        if not uid:
            self._refuse(peer, f"process {peer.pid} (uid {peer.uid}) is of no pod")
            return None
        for stored in self._objects.of("Pod").values():
            if stored.uid == uid:
                return self._workload(stored, peer, sock)
        return None

    def _workload(self, stored: Stored, peer: Peer, sock: Socket) -> Workload | None:
        pod = stored.object
        meta, account = pod.metadata, service_account_of(pod.spec)
        name = f"{meta.namespace}/{meta.name}"
        place = OWN_NETWORK if pod.spec.host_network else self._paths.netns(name)
        if peer.network != namespace_at(place):
            self._refuse(peer, f"process {peer.pid} is of {name}, and not in its network")
            return None
        asked = self.selectors_of(stored)
        if asked:
            try:
                process = peer_traits(sock, peer.pid)
            except UnavailableError as error:
                log.info("workload API: %s", error)
                return None
            if lacks := lacking(asked, process):
                what = f"{process.path} ({peer.pid}) of {name}"
                self._refuse(peer, f"{what} is not {', '.join(lacks)}")
                return None
        id_ = workload_id(self._trust_domain, meta.namespace, account)
        return Workload(stored.uid, name, id_, watched=bool(asked))

    def _refuse(self, peer: Peer, why: str) -> None:
        log.warning("workload API: %s", why)
        self._refused(peer, why)

    def pod_of(self, cgroup: str) -> str:
        """UID of the pod whose control group it is; "" when it is none's."""
        if not cgroup.startswith(self._pods):
            return ""
        return cgroup.removeprefix(self._pods).partition("/")[0]

    def asked(self) -> dict[str, tuple[str, tuple[Selectors, ...]]]:
        """By UID the pods that have selectors: their names, and what is asked of a process."""
        found = {}
        for stored in self._objects.of("Pod").values():
            if selectors := self.selectors_of(stored):
                meta = stored.object.metadata
                found[stored.uid] = f"{meta.namespace}/{meta.name}", selectors
        return found

    def selectors_of(self, stored: Stored) -> tuple[Selectors, ...]:
        """What processes of a pod must fit, one of these; () when its control group is enough."""
        objects = [one.object for one in self._objects.of(KIND).values()]
        if not objects:
            return ()
        meta = stored.object.metadata
        namespace = self._objects.of("Namespace").get(Key("Namespace", "", meta.namespace))
        given = namespace.object.metadata.labels if namespace is not None else {}
        return alternatives(objects, namespace_labels(meta.namespace, given), meta.labels)

    def follow(self) -> bool:
        """Called after a round: whether objects with selectors are others than before."""
        before, self._known = self._known, [*self._objects.of(KIND).values()]
        return before != self._known

    def living(self, uids: Iterable[str]) -> set[str]:
        """Those of the pods that are still there."""
        return {stored.uid for stored in self._objects.of("Pod").values()} & set(uids)


def told_by(agent: Agent) -> Refused:
    """In the flow log: from the pod in whose network the process is, or from the host."""

    def tell(peer: Peer, why: str) -> None:
        endpoints = agent.plans.world.endpoints.values() if agent.plans is not None else ()
        here = next(
            (it for it in endpoints if it.netns and namespace_at(Path(it.netns)) == peer.network),
            None,
        )
        source = (here.ipv4 or here.ipv6) if here is not None else None
        agent.tell(no_identity(agent.names, source, agent.config.host_ipv4, why, time.time_ns()))

    return tell


class IdentitiesSeen(NamedTuple):
    """What an audit is told of them."""

    svids: tuple[SvidSeen, ...]
    unfit: tuple[UnfitSeen, ...]


def identities_seen(api: WorkloadApi, attestation: Attestation) -> IdentitiesSeen:
    """Now."""
    api.keep(attestation.living(api.issued))
    now = datetime.now(UTC)
    svids = tuple(
        SvidSeen(
            workload.pod,
            pem(svid.certificate).decode(),
            followed=bool(api.followers[uid]),
            overdue_s=max(0.0, (now - svid.renew_at).total_seconds()),
        )
        for uid, (workload, svid) in sorted(api.issued.items())
    )
    return IdentitiesSeen(svids, tuple(_unfit(attestation)))


def _unfit(attestation: Attestation) -> Iterator[UnfitSeen]:
    """Processes of pods that their pods' identities are not for."""
    asked = attestation.asked()
    for pid, _ in namespaces() if asked else ():
        pod, selectors = asked.get(attestation.pod_of(control_group(pid)), ("", ()))
        if selectors:
            with contextlib.suppress(OSError):  # it is gone
                if lacks := lacking(selectors, traits_of(pid)):
                    yield UnfitSeen(pod, command(pid), lacks)


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
