"""Registrations of processes, and the checks that keep them honest.

Kept in the state directory before a client is answered: they survive the agent. What the next
agent finds is as healthy as it was; a TTL gets its whole time again, since nobody could renew it
meanwhile. Checks that are dialled use the probes of containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from ipaddress import ip_address
from random import Random
from urllib.parse import urlsplit

import msgspec

from sixfold.discovery.catalog import Registered
from sixfold.discovery.registration import (
    Check,
    Health,
    Registration,
    Status,
    begin,
    expire,
    is_overdue,
    report,
)
from sixfold.errors import NotFoundError
from sixfold.host.probes import Probed, ProbeResult
from sixfold.model.workload import GRPCAction, HTTPGetAction, HTTPHeader, Probe, TCPSocketAction
from sixfold.store import Database

log = logging.getLogger(__name__)

REGISTRATIONS_MAX = 4096
LOOK_S = 1.0  # at most between two looks at what is due
JITTER = 0.1

Ask = Callable[[Probe, Probed], Awaitable[ProbeResult]]


class Registrations:
    """All registrations of this node, by id. ``changed`` is called when one is another."""

    def __init__(self, database: Database, ask: Ask, changed: Callable[[], None]) -> None:
        self._database = database
        self._ask = ask
        self._changed = changed
        self._chance = Random()
        self._all: dict[str, Registered] = {}
        self._by_service: dict[str, tuple[Registered, ...]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        now_s = time.time()
        decode = msgspec.json.Decoder(Registered).decode
        for (body,) in database.connection.execute("SELECT body FROM registrations ORDER BY id"):
            one = decode(body)
            health = tuple(
                _resumed(check, was, now_s)
                for check, was in zip(one.registration.checks, one.health, strict=True)
            )
            self._keep(Registered(one.registration, health, one.maintenance))

    @property
    def by_service(self) -> Mapping[str, tuple[Registered, ...]]:
        """By ``namespace/name``; what did not change is the same object."""
        return self._by_service

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._all.values())

    def get(self, id_: str) -> Registered | None:
        return self._all.get(id_)

    def find_check(self, id_: str) -> tuple[Registered, int]:
        """The registration that has a check, and its place there."""
        for one in self._all.values():
            for place, check in enumerate(one.registration.checks):
                if check.id == id_:
                    return one, place
        raise NotFoundError(f'Unknown check ID "{id_}". Ensure that the check ID is passed.')

    def register(self, registration: Registration) -> None:
        """Take it, or put it in the place of its predecessor, whose checks go on."""
        now_s = time.time()
        old = self._all.get(registration.id)
        pairs = zip(old.registration.checks, old.health, strict=True) if old else ()
        known = {check.id: (check, health) for check, health in pairs}
        taken = {
            check.id
            for other in self._all.values()
            if other.registration.id != registration.id
            for check in other.registration.checks
        }
        health = []
        for check in registration.checks:
            if check.id in taken:
                raise ValueError(f'CheckID "{check.id}": another service has it; give another')
            was = known.get(check.id)
            health.append(was[1] if was and was[0] == check else begin(check, now_s))
        self._put(Registered(registration, tuple(health), old.maintenance if old else None))

    def deregister(self, id_: str) -> None:
        if id_ not in self._all:
            raise NotFoundError(
                f'Unknown service ID "{id_}". Ensure that the service ID is passed.'
            )
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM registrations WHERE id = ?", (id_,))
        one = self._all.pop(id_)
        self._regroup(one.registration.service)
        self._changed()

    def add_check(self, id_: str, check: Check) -> None:
        one = self._all[id_]
        checks = tuple(each for each in one.registration.checks if each.id != check.id)
        self.register(msgspec.structs.replace(one.registration, checks=(*checks, check)))

    def remove_check(self, check_id: str) -> None:
        one, place = self.find_check(check_id)
        checks = list(one.registration.checks)
        del checks[place]
        self.register(msgspec.structs.replace(one.registration, checks=tuple(checks)))

    def say(self, check_id: str, status: Status, output: str) -> bool:
        """A client reports on its TTL check; returns whether anything is another now."""
        one, place = self.find_check(check_id)
        if one.registration.checks[place].type != "ttl":
            raise ValueError(f'CheckID "{check_id}" does not have associated TTL')
        return self._report(one, place, status, output)

    def maintain(self, id_: str, reason: str | None) -> None:
        """Into maintenance, with a reason; None: out of it."""
        one = self._all.get(id_)
        if one is None:
            raise NotFoundError(
                f'Unknown service ID "{id_}". Ensure that the service ID is passed.'
            )
        self._put(Registered(one.registration, one.health, reason))

    # --- checks ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask what is due, let expire what nobody renewed, until cancelled."""
        try:
            while True:
                self._look(time.time())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._pause_s())
                self._woken.clear()
        finally:
            for task in self._asking.values():
                task.cancel()

    def _pause_s(self) -> float:
        due = (health.due_s for one in self._all.values() for health in one.health)
        next_s = min((due_s for due_s in due if due_s is not None), default=math.inf)
        return min(LOOK_S, max(0.01, next_s - time.time()))

    def _look(self, now_s: float) -> None:
        for one in list(self._all.values()):
            pairs = list(zip(one.registration.checks, one.health, strict=True))
            if any(is_overdue(check, health, now_s) for check, health in pairs):
                log.warning("registration %s: critical for too long; gone", one.registration.id)
                self.deregister(one.registration.id)
                continue
            expired = tuple(expire(check, health, now_s) for check, health in pairs)
            if expired != one.health:
                self._put(Registered(one.registration, expired, one.maintenance))
            for check, health in pairs:
                due = health.due_s is not None and health.due_s <= now_s
                if check.type != "ttl" and due and check.id not in self._asking:
                    task = asyncio.create_task(self._probe(one.registration, check))
                    self._asking[check.id] = task

    async def _probe(self, registration: Registration, check: Check) -> None:
        try:
            status, output = await dial(self._ask, registration, check)
            one = self._all.get(registration.id)
            if one is not None and check in one.registration.checks:
                self._report(one, one.registration.checks.index(check), status, output)
        except Exception:
            log.exception("check %s", check.id)
            await asyncio.sleep(check.interval_s)
        finally:
            self._asking.pop(check.id, None)
            self._woken.set()

    def _report(self, one: Registered, place: int, status: Status, output: str) -> bool:
        check, before = one.registration.checks[place], one.health[place]
        after = report(check, before, status, output, time.time())
        if check.type != "ttl":
            spread = 1 + JITTER * (self._chance.random() - 0.5)
            after = msgspec.structs.replace(after, due_s=time.time() + check.interval_s * spread)
        health = (*one.health[:place], after, *one.health[place + 1 :])
        told = after.status != before.status
        told |= (check.type == "ttl" or not before.output) and after.output != before.output
        self._put(Registered(one.registration, health, one.maintenance), told=told)
        return told

    # --- kept -----------------------------------------------------------------------------

    def _put(self, one: Registered, *, told: bool = True) -> None:
        """Keep it; what nobody is told of need not be written, nor does it wake anybody."""
        if not told:
            self._all[one.registration.id] = one
            return
        if one.registration.id not in self._all and len(self._all) >= REGISTRATIONS_MAX:
            raise ValueError(f"no room for more than {REGISTRATIONS_MAX} registrations")
        with self._database.transaction() as connection:
            connection.execute(
                "REPLACE INTO registrations VALUES (?, ?)",
                (one.registration.id, msgspec.json.encode(one)),
            )
        self._keep(one)
        self._woken.set()
        self._changed()

    def _keep(self, one: Registered) -> None:
        old = self._all.get(one.registration.id)
        self._all[one.registration.id] = one
        for service in {one.registration.service, *([old.registration.service] if old else ())}:
            self._regroup(service)

    def _regroup(self, service: str) -> None:
        """Replaced as a whole: whoever holds the last mapping sees what changed."""
        members = tuple(
            one for _, one in sorted(self._all.items()) if one.registration.service == service
        )
        groups = {key: group for key, group in self._by_service.items() if key != service}
        self._by_service = groups | ({service: members} if members else {})


def _resumed(check: Check, health: Health, now_s: float) -> Health:
    """After a restart of the agent."""
    if check.type == "ttl" and health.due_s is not None:
        return msgspec.structs.replace(health, due_s=now_s + check.ttl_s)
    return health


async def dial(ask: Ask, registration: Registration, check: Check) -> tuple[Status, str]:
    """Ask once; HTTP 429 is a warning, 2xx is well, everything else is not (as Consul has it)."""
    host, port = check.destination
    timeout_s = max(1, math.ceil(check.timeout_s))
    address = ip_address("127.0.0.1")
    with contextlib.suppress(ValueError):
        address = ip_address(host)
    probed = Probed(address, {}, None)
    match check.type:
        case "http":
            url = urlsplit(check.url)
            headers = [
                HTTPHeader(name, each) for name, all_ in check.header.items() for each in all_
            ]
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            action = HTTPGetAction(
                port=port,
                path=path,
                host=host,
                scheme="HTTPS" if url.scheme == "https" else "HTTP",
                http_headers=headers,
            )
            result = await ask(Probe(http_get=action, timeout_seconds=timeout_s), probed)
            if result.code == 429:
                return "warning", result.message
            return ("passing" if 200 <= result.code < 300 else "critical"), result.message
        case "tcp":
            probe = Probe(
                tcp_socket=TCPSocketAction(port=port, host=host), timeout_seconds=timeout_s
            )
        case _:
            service = check.url.partition("/")[2]
            probe = Probe(grpc=GRPCAction(port=port, service=service), timeout_seconds=timeout_s)
    result = await ask(probe, probed)
    return ("passing" if result.ok else "critical"), result.message
