"""What the mesh does when authorities succeed one another, and when certificates have run out.

Tunnels rest on the certificates that their handshake showed; no later secret changes that. So
after ``taint`` the clusters get another version: new connections make new tunnels, and the old
ones drain. What a pod held that is gone, and its identity, is cut at the other end. After
``revoke`` tunnels that may rest on who is gone are cut: those that were dialled before the proxy
had taken the last certificate that did not come from there. And no tunnel is older than half a
certificate's life, for so much is left at least when it is shown, and the grace.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from sixfold.agent.agent import Agent
from sixfold.agent.authority import Authorities
from sixfold.agent.events import FlowReader
from sixfold.host.tunnels import Tunnel, close_tunnels, tunnels
from sixfold.mesh import resources
from sixfold.mesh.member import Member
from sixfold.mesh.messages import CLUSTER, Resource
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import by_address
from sixfold.model.mesh import TUNNEL_PORT
from sixfold.model.spiffe import workload_id
from sixfold.observe.access import tunnel_cut
from sixfold.trust.keyring import Keyring

log = logging.getLogger(__name__)

TAKEN_S = 2.0  # so long the proxy is waited for
LOOK_S = (0.5, 60.0)  # at how old tunnels are


class Succession:
    """One per mesh; ``offer`` offers all that proxies should hold, ``taken`` waits for them."""

    def __init__(
        self,
        agent: Agent,
        authorities: Authorities,
        flows: FlowReader,
        taken: Callable[[float], Awaitable[bool]],
        offer: Callable[[], None],
    ) -> None:
        self._agent = agent
        self._authorities = authorities
        self._flows = flows
        self._taken = taken
        self._offer = offer
        self._before = authorities.keyring
        self._name = _name(authorities.keyring)
        self._clean_s: dict[str, float] = {}  # since when the proxy shows nothing of an authority
        self._anew: dict[str, tuple[Resource, Resource]] = {}
        self._work: asyncio.Task[None] | None = None
        self._parting: asyncio.Task[None] | None = None  # held, so that it is not collected

    def clusters(self, offered: Collection[Resource]) -> list[Resource]:
        """As they are to be told: under this succession's version."""
        found, kept = [], {}
        for one in offered:
            if one.type_url == CLUSTER and self._name:
                known = self._anew.get(one.name)
                if known is None or known[0] is not one:
                    known = one, resources.anew(one, self._name)
                kept[one.name] = known
                one = known[1]
            found.append(one)
        self._anew = kept
        return found

    def renewed(self, authorities: Collection[str]) -> None:
        """Of these authorities are the certificates that are offered from now on."""
        now_s = time.monotonic()
        for one in self._before.x509_authorities:
            if one.authority.id in authorities:
                self._clean_s.pop(one.authority.id, None)
            else:
                self._clean_s.setdefault(one.authority.id, now_s + TAKEN_S)

    def follow(self) -> None:
        """The keyring has changed, and new secrets are offered."""
        before, self._before = self._before, self._authorities.keyring
        self._work = asyncio.ensure_future(self._succeed(before, self._before, self._work))

    async def settled(self) -> None:
        """When what follows from the last change is done."""
        if self._work is not None:
            await self._work

    async def _succeed(
        self, before: Keyring, after: Keyring, earlier: asyncio.Task[None] | None
    ) -> None:
        if earlier is not None:
            await earlier
        taken = await self._taken(TAKEN_S)
        shown_s = time.monotonic()
        if taken:
            self._clean_s = {one: min(at_s, shown_s) for one, at_s in self._clean_s.items()}
        if (name := _name(after)) != self._name:
            self._name = name
            self._anew = {}
            self._offer()
            await self._taken(TAKEN_S)
        left = {one.authority.id for one in after.x509_authorities}
        for id_ in {one.authority.id for one in before.x509_authorities} - left:
            since_s = min(self._clean_s.pop(id_, shown_s), shown_s)
            why = f"cut: authority {id_} is trusted no more"
            await self._cut(time.monotonic() - since_s, why)

    def part(self, before: Mapping[str, Member], after: Mapping[str, Member]) -> None:
        """Members of the mesh were these, and are those: who is gone holds nothing."""
        gone = {key: one for key, one in before.items() if after.get(key) != one}
        if gone:
            self._parting = asyncio.ensure_future(self._part(gone, after))

    async def _part(self, gone: Mapping[str, Member], after: Mapping[str, Member]) -> None:
        places = {at: Path(one.netns) for one in after.values() for at in one.addresses}
        ids = {at: one.id for one in (*gone.values(), *after.values()) for at in one.addresses}
        pods = {at: key for key, one in gone.items() for at in one.addresses if at not in places}
        opened = tunnels(self._agent.datapath.maps["tunnels"])
        for pod in sorted(set(pods.values())):
            those = [one for one in opened if pod in (pods.get(one.client), pods.get(one.server))]
            if those:
                await asyncio.to_thread(close_tunnels, those, places)
                self._tell(those, ids, f"cut: {pod} is gone, and its identity")

    async def expire(self) -> None:
        """Cut what has outlived its certificates, and the grace, until cancelled."""
        config = self._agent.config
        limit_s = config.svid_ttl_s / 2 + config.connection_grace_s
        while True:
            opened = tunnels(self._agent.datapath.maps["tunnels"])
            oldest_s = max((one.age_s for one in opened), default=0.0)
            if oldest_s > limit_s:
                await self._cut(limit_s, "cut: it has outlived its certificates")
            await asyncio.sleep(min(max(limit_s - oldest_s, LOOK_S[0]), LOOK_S[1]))

    async def _cut(self, older_s: float, why: str) -> None:
        plans = self._agent.plans
        if plans is None:
            return
        maps = self._agent.datapath.maps
        those = [one for one in tunnels(maps["tunnels"]) if one.age_s > older_s]
        domain = self._agent.config.trust_domain
        ids: dict[IPAddress, str] = {}
        for address, endpoint in by_address(plans.world.endpoints.values()).items():
            subject = endpoint.subject
            ids[address] = str(workload_id(domain, subject.namespace, subject.service_account))
        closed = await asyncio.to_thread(close_tunnels, those, plans.netns_at)
        if closed:
            log.warning("%s: %d tunnels", why, closed)
        self._tell(those, ids, why)

    def _tell(self, those: Collection[Tunnel], ids: Mapping[IPAddress, str], why: str) -> None:
        now_ns = time.time_ns()
        self._flows.log.extend(
            [
                tunnel_cut(
                    self._agent.names,
                    (one.client, one.client_port),
                    (one.server, TUNNEL_PORT),
                    why,
                    (ids.get(one.client, ""), ids.get(one.server, "")),
                    now_ns,
                )
                for one in those
            ]
        )


def _name(keyring: Keyring) -> str:
    """Another one whenever what was signed is to be shown no more; "" at first."""
    tainted = sorted(one.authority.id for one in keyring.x509_authorities if one.tainted)
    return " ".join([keyring.authority.id, *tainted]) if tainted or keyring.sequence > 1 else ""
