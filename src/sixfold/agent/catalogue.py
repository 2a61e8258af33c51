"""What the catalogue's door is told and may do: answers made of the agent's state.

Who may register what, fail closed: the operator everything; a pod itself, in its own namespace,
behind a Service that says ``sixfold.dev/registration: open``; whoever else nothing. A registration
at a pod's address ends with that pod, so that it never means the next owner of the address.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

import msgspec
from starlette.requests import Request

from sixfold.agent.agent import Agent, key_of_pod
from sixfold.agent.planning import Plans
from sixfold.agent.registrations import Registrations
from sixfold.discovery.catalog import Catalogue, Registered
from sixfold.discovery.consul import Sight
from sixfold.discovery.prometheus import Scene
from sixfold.discovery.registered import OPEN, REGISTRATION, takes_pods
from sixfold.discovery.registration import (
    Check,
    Registration,
    RegistrationError,
    Status,
    parse_check,
    parse_registration,
)
from sixfold.errors import NotFoundError, UnavailableError
from sixfold.model.endpoint import Endpoint
from sixfold.model.names import EVERYTHING, NOTHING, Lines, numbers_in
from sixfold.serve.callers import Caller, DeniedError, Door, caller_of

NEEDS_TOKEN = "Permission denied: that takes the token in catalog.token of the state directory"
SEES_NOTHING: Lines = {}
EACH_MAX = 16  # registrations of one pod


class Told:
    """Implements ``serve.catalogue.Handlers``; ``follow`` is called after every round."""

    def __init__(self, agent: Agent, registrations: Registrations) -> None:
        self._agent = agent
        self._registrations = registrations
        # Numbers of a later agent are higher, as long as there are less than 1000 changes a second.
        self.catalogue = Catalogue(int(time.time() * 1000))
        self._pods: tuple[object, dict[str, str]] = (None, {})  # by address, of which endpoints
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._sights: dict[str, Lines | None] = {}  # of pods that asked; None: everything
        self._turned: defaultdict[str, dict[str, int]] = defaultdict(dict)  # see ``index``

    def follow(self) -> None:
        """Take over what is in force now, and wake who waits for it."""
        plans = self._plans()
        for one in list(self._registrations):
            if one.registration.owner and self._uid(one.registration.owner) != one.registration.uid:
                self._registrations.deregister(one.registration.id)
        changed = self.catalogue.update(
            plans.world, plans.balancing.slices, self._registrations.by_service
        )
        changed |= self._turn(plans)
        for key in (*changed, *(("",) if changed else ())):
            for future in self._waiting.pop(key, ()):
                if not future.done():
                    future.set_result(None)

    def changed(self, service: str) -> asyncio.Future[None]:
        """Done when this service changes next; "" is any."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[service].add(future)
        future.add_done_callback(self._waiting[service].discard)
        return future

    def index(self, caller: Caller, service: str | None) -> int:
        """Of the last change of what this caller is told of a service; None: of anything."""
        if service is None:
            return self.catalogue.index
        told = service if self._seen_by(caller)(service) else ""  # what is hidden is not there
        turned = self._turned[caller.pod].get(service, 0) if caller.pod in self._turned else 0
        return max(self.catalogue.index_of(told), turned)

    def _turn(self, plans: Plans) -> set[str]:
        """Services that a pod is told of now and was not before, or the other way round."""
        found: set[str] = set()
        for pod, before in list(self._sights.items()):
            endpoint = plans.world.endpoints.get(pod)
            if endpoint is None:
                del self._sights[pod]
                self._turned.pop(pod, None)
                continue
            self._sights[pod] = now = _lines(plans, endpoint)
            if now is before:
                continue
            if now is None or before is None:
                services = set(self.catalogue.instances)
            else:
                known = self._agent.names.services
                numbers = set(numbers_in(now)) ^ set(numbers_in(before))
                names = [known[number] for number in numbers if number in known]
                services = {f"{one.namespace}/{one.name}" for one in names}
            if services:
                self.catalogue.index += 1
                self._turned[pod].update(dict.fromkeys(services, self.catalogue.index))
                found |= services
        return found

    def scene(self, caller: Caller) -> Scene:
        """What a caller may scrape: a pod the services that it sees, and who serves them."""
        agent, plans = self._agent, self._plans()
        pods = {
            f"{key.namespace}/{key.name}": stored.object
            for key, stored in agent.objects.of("Pod").items()
        }
        phases = {state.key: state.phase for state in agent.pods().values()}
        scene = Scene(plans.world, plans.balancing.slices, pods, phases)
        return scene if caller.kind != "pod" else scene.seen(self._seen_by(caller))

    def caller(self, request: Request, door: Door) -> Caller:
        config, endpoints = self._agent.config, self._plans().world.endpoints
        if self._pods[0] is not endpoints:
            pods = {
                str(address): endpoint.key
                for endpoint in endpoints.values()
                for address in endpoint.addresses
            }
            self._pods = (endpoints, pods)
        local = frozenset((str(config.host_ipv4), str(config.host_ipv6)))
        return caller_of(request, door, self._pods[1], local)

    def sight(self, caller: Caller, namespace: str) -> Sight:
        return Sight(self.catalogue, self._agent.config, namespace, self._seen_by(caller))

    def _seen_by(self, caller: Caller) -> Callable[[str], bool]:
        """Services that a caller may know of: a pod those whose names it is told, and its own."""
        if caller.kind != "pod":
            return lambda _: True
        plans = self._plans()
        self._sights.setdefault(caller.pod, _lines(plans, plans.world.endpoints[caller.pod]))

        def sees(service: str) -> bool:
            """As of now: who waits for a change may be told of something else by then."""
            plans = self._plans()
            endpoint = plans.world.endpoints.get(caller.pod)
            view = plans.views.of.get(endpoint.id, NOTHING) if endpoint else NOTHING
            return plans.views.sees(view, service) or any(
                one.registration.service == service for one in self.registered(caller)
            )

        return sees

    # --- registrations --------------------------------------------------------------------

    async def register(self, caller: Caller, body: dict[str, Any], namespace: str) -> None:
        registration = self._admitted(caller, parse_registration(body, namespace))
        self._registrations.register(registration)
        await self._agent.in_force()

    async def deregister(self, caller: Caller, id_: str) -> None:
        self._own(caller, id_)
        self._registrations.deregister(id_)
        await self._agent.in_force()

    async def register_check(self, caller: Caller, body: dict[str, Any]) -> None:
        fields = {str(k).lower().replace("_", ""): v for k, v in body.items()}
        id_ = str(fields.get("serviceid") or "")
        if not id_:
            raise RegistrationError("ServiceID: give a service's; checks of the node are not kept")
        one = self._own(caller, id_)
        name = str(fields.get("name") or "")
        check = parse_check(body, name or f"service:{id_}", name)
        self._check_place(caller, check)
        self._registrations.add_check(one.registration.id, check)
        await self._agent.in_force()

    async def deregister_check(self, caller: Caller, id_: str) -> None:
        self._own(caller, self._registrations.find_check(id_)[0].registration.id)
        self._registrations.remove_check(id_)
        await self._agent.in_force()

    async def say(self, caller: Caller, check_id: str, status: Status, output: str) -> None:
        self._own(caller, self._registrations.find_check(check_id)[0].registration.id)
        if self._registrations.say(check_id, status, output):
            await self._agent.in_force()

    async def maintain(self, caller: Caller, id_: str, reason: str | None) -> None:
        self._own(caller, id_)
        self._registrations.maintain(id_, reason)
        await self._agent.in_force()

    def registered(self, caller: Caller) -> Iterable[Registered]:
        return [
            one
            for one in self._registrations
            if caller.kind != "pod" or one.registration.owner == caller.pod
        ]

    def _own(self, caller: Caller, id_: str) -> Registered:
        """A registration that the caller may change."""
        one = self._registrations.get(id_)
        if caller.kind == "reader":
            raise DeniedError(NEEDS_TOKEN)
        mine = one is not None and one.registration.own and one.registration.owner == caller.pod
        if caller.kind == "pod" and one is not None and not mine:
            raise DeniedError(f'Permission denied: service ID "{id_}" is not of {caller.pod}')
        if one is None:
            raise NotFoundError(
                f'Unknown service ID "{id_}". Ensure that the service ID is passed.'
            )
        return one

    def _admitted(self, caller: Caller, asked: Registration) -> Registration:
        """What is taken; DeniedError when it is not the caller's to register."""
        match caller.kind:
            case "reader":
                raise DeniedError(NEEDS_TOKEN)
            case "operator":
                return self._of_operator(asked)
        return self._of_pod(caller, asked)

    def _of_operator(self, asked: Registration) -> Registration:
        if not asked.address:
            return asked
        config, address = self._agent.config, ip_address(asked.address)
        if address in config.service_ipv4 or address in config.service_ipv6:
            raise RegistrationError(f"Address {address}: is a Service's; give that of a process")
        for endpoint in self._plans().world.endpoints.values():
            if address in endpoint.addresses:
                owner = endpoint.key
                return msgspec.structs.replace(asked, owner=owner, uid=self._uid(owner))
        inside = address in config.pod_ipv4 or address in config.pod_ipv6
        if inside and address not in (config.host_ipv4, config.host_ipv6):
            raise RegistrationError(f"Address {address}: no pod has it")
        return asked

    def _of_pod(self, caller: Caller, asked: Registration) -> Registration:
        world = self._plans().world
        own = {str(address) for address in world.endpoints[caller.pod].addresses}
        if asked.namespace != caller.namespace:
            raise DeniedError(
                f"Permission denied: {caller.pod} registers in namespace {caller.namespace} only"
            )
        if asked.address not in ("", *own):
            raise DeniedError(
                f"Permission denied: {caller.pod} registers itself only, at {caller.address}"
            )
        if not takes_pods(world.services.get(asked.service)):
            raise DeniedError(
                f"Permission denied: service {asked.service} takes no registrations of pods; "
                f"annotate it {REGISTRATION}: {OPEN}"
            )
        before = self._registrations.get(asked.id)
        if before is not None:
            self._own(caller, asked.id)
        elif len(list(self.registered(caller))) >= EACH_MAX:
            raise DeniedError(f"Permission denied: {caller.pod} has {EACH_MAX} registrations")
        for check in asked.checks:
            self._check_place(caller, check)
        return msgspec.structs.replace(
            asked,
            address=asked.address or caller.address,
            owner=caller.pod,
            uid=self._uid(caller.pod),
            own=True,
        )

    def _check_place(self, caller: Caller, check: Check) -> None:
        """The agent dials nobody else on a pod's behalf."""
        host, _ = check.destination
        if caller.kind != "pod" or not host:
            return
        own = {str(one) for one in self._plans().world.endpoints[caller.pod].addresses}
        if host not in own:
            raise DeniedError(f"Permission denied: a check of {caller.pod} asks itself, not {host}")

    def _uid(self, pod: str) -> str:
        stored = self._agent.objects.get(key_of_pod(pod))
        return stored.uid if stored else ""

    def _plans(self) -> Plans:
        if self._agent.plans is None:
            raise UnavailableError("catalogue: nothing is planned yet; try again in a moment")
        return self._agent.plans


def _lines(plans: Plans, endpoint: Endpoint) -> Lines | None:
    """What a pod sees; None: everything."""
    view = plans.views.of.get(endpoint.id, NOTHING)
    return None if view == EVERYTHING else plans.views.seen.get(view, SEES_NOTHING)
