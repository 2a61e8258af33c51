"""Requests that last longer than the rules that let them in: judged anew when rules change.

Theory of operation. Nobody keeps a list of open requests. When the proxy has new rules for a pod,
it is asked over xDS (a runtime key for each pod) to tell of what is open there; each open request
looks for that key from time to time, and then comes as an entry of a log. What would be refused
now (``mesh.open_requests``) is cut by closing the proxy's socket to the pod's process: that of one
request, or of one call where rules are about calls. Of other calls all that a client has there go
together; at a Gateway, whose clients' own connections are closed, all requests of one. The flow
is told when the request has ended. Tokens end by themselves: where some are
wanted, it is asked from time to time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sixfold.agent.agent import Agent
from sixfold.agent.planning import Plans
from sixfold.host.sockets import TCP, End, close_ends
from sixfold.mesh.asked import Asked as Request
from sixfold.mesh.messages import Resource
from sixfold.mesh.open_requests import Begun, Refusal, asking, refusal, refused_at_gateway
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint, by_address
from sixfold.model.flow import Flow
from sixfold.observe.open_requests import Key, OpenRequest, cut, key_of, open_request
from sixfold.policy.requests import Requests

ASK_S = 1.5  # so long it is asked: each open request has looked by then, and its entry is here
TOKENS_S = 10.0  # between looks for tokens that are over


class OpenRequests:
    """One per mesh; ``offer`` tells the proxy what ``asking`` says."""

    def __init__(self, agent: Agent, offer: Callable[[], None]) -> None:
        self._agent = agent
        self._offer = offer
        self._until_s: dict[str, float] = {}  # by pod
        self._refused: dict[Key, Refusal] = {}
        self._due: dict[Path, list[End]] = {}
        self._closing: asyncio.Task[None] | None = None
        self._judge: tuple[Plans, Requests, dict[IPAddress, Endpoint]] | None = None

    @property
    def asking(self) -> Resource:
        return asking(self._until_s)

    def ask(self, pods: Iterable[str]) -> None:
        """The rules of these pods are others now, and the proxy has them."""
        asked = dict.fromkeys(pods, time.monotonic() + ASK_S)
        if not asked:
            return
        new = asked.keys() - self._until_s.keys()
        self._until_s |= asked
        asyncio.get_running_loop().call_later(ASK_S + 0.01, self._enough)
        if new:
            self._offer()

    def _enough(self) -> None:
        now_s = time.monotonic()
        left = {pod: until_s for pod, until_s in self._until_s.items() if until_s > now_s}
        if left.keys() != self._until_s.keys():
            self._until_s = left
            self._offer()
        if not left:
            self._refused.clear()

    def take(self, entry: Any, *, at_gateway: bool) -> None:
        """An open request."""
        key, one = key_of(entry), open_request(entry, at_gateway=at_gateway)
        if key in self._refused or (found := self._refusal(one, at_gateway)) is None:
            return
        refused, server = found
        self._refused[key] = refused
        near, far = (one.destination, one.source) if at_gateway else (one.near, one.far)
        self._due.setdefault(Path(server.netns), []).append((TCP, *near, *far))
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        await asyncio.sleep(0)  # all of a batch together
        due, self._due = self._due, {}
        self._closing = None
        for namespace, ends in due.items():
            await asyncio.to_thread(close_ends, dict.fromkeys(ends), namespace)

    def told(self, entry: Any, flow: Flow) -> Flow:
        """A request is over, which is told so; or that it was cut, and by which rule."""
        if not self._refused or (why := self._refused.pop(key_of(entry), None)) is None:
            return flow
        return cut(flow, *why)

    async def expire(self) -> None:
        """Look for tokens that are over, until cancelled."""
        while True:
            await asyncio.sleep(TOKENS_S)
            if (plans := self._agent.plans) is not None:
                tokens = self._requests(plans)[0].authorizations.tokens
                self.ask(key for key, one in plans.world.endpoints.items() if tokens(one))

    def _refusal(self, one: OpenRequest, at_gateway: bool) -> tuple[Refusal, Endpoint] | None:
        """Who serves it, and why it may not go on."""
        if (plans := self._agent.plans) is None:
            return None
        requests, at = self._requests(plans)
        client, server = at.get(one.source[0]), at.get(one.destination[0])
        asked = Request(one.method, one.path, one.host, one.headers)
        begun = Begun(asked, one.claims, {*one.headers, *one.absent})
        port, now_s = one.destination[1], time.time()
        if server is None or (client is None and not at_gateway):  # its tunnel is cut
            return None
        if client is None or at_gateway:
            address = one.source[0]
            found = refused_at_gateway(requests, address, server, port, begun, now_s)
        else:
            domain = plans.world.config.trust_domain
            who = domain, client, server
            found = refusal(requests, *who, port, begun, now_s, one.foreign)
        return None if found is None else (found, server)

    def _requests(self, plans: Plans) -> tuple[Requests, dict[IPAddress, Endpoint]]:
        if self._judge is None or self._judge[0] is not plans:
            at = by_address(plans.world.endpoints.values())
            self._judge = plans, Requests(plans.world, plans.policy), at
        return self._judge[1:]
