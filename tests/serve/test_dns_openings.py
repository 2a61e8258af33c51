"""Answers wait for the agent that watches their names, and for nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import dns.message
import dns.rrset
import pytest

from sixfold.serve import dns_control as control
from sixfold.serve import dns_openings
from sixfold.serve.dns_openings import Openings

NAME = "api.example.org"


class Wire:
    """Takes the place of an agent's connection: what was written is there to read."""

    def __init__(self) -> None:
        self.sent: list[control.Resolved] = []

    def write(self, frame: bytes) -> None:
        message = control.decode_report(frame[control.LENGTH.size :])
        assert isinstance(message, control.Resolved)
        self.sent.append(message)


def reply(name: str = NAME, ttl_s: int = 60, address: str = "192.0.2.1") -> bytes:
    message = dns.message.make_response(dns.message.make_query(name, "A"))
    message.answer.append(dns.rrset.from_text(f"{name}.", ttl_s, "IN", "A", address))
    return message.to_wire()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 5))


async def soon(task: asyncio.Task[None]) -> bool:
    """Whether it is done when all that can happen has happened."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


def watched(*patterns: str) -> tuple[Openings, Any]:
    openings, wire = Openings(), Wire()
    openings.watch(patterns, wire, [])  # type: ignore[arg-type]
    return openings, wire


def test_an_answer_waits_until_its_addresses_are_open():
    async def work() -> None:
        openings, wire = watched("*.example.org")
        task = asyncio.create_task(openings.open(NAME, reply()))
        assert not await soon(task)
        (told,) = wire.sent
        assert (told.name, told.addresses) == (NAME, {"192.0.2.1": 60})
        openings.opened(control.Opened(told.number, True))
        assert await soon(task)

    run(work())


def test_names_that_no_policy_mentions_wait_for_nobody():
    async def work() -> None:
        openings, wire = watched("api.example.com")
        await openings.open(NAME, reply())
        assert wire.sent == []

    run(work())


def test_what_was_confirmed_is_not_asked_again_until_its_time_is_over():
    async def work() -> None:
        openings, wire = watched(NAME)
        for number, (ttl_s, asked) in enumerate([(60, 1), (59, 1), (600, 2), (60, 2)]):
            task = asyncio.create_task(openings.open(NAME, reply(ttl_s=ttl_s)))
            done = await soon(task)
            assert len(wire.sent) == asked, number
            if not done:
                openings.opened(control.Opened(wire.sent[-1].number, True))
            await task

    run(work())


def test_what_could_not_be_opened_is_asked_again():
    async def work() -> None:
        openings, wire = watched(NAME)
        for asked in (1, 2):
            task = asyncio.create_task(openings.open(NAME, reply()))
            await soon(task)
            assert len(wire.sent) == asked
            openings.opened(control.Opened(wire.sent[-1].number, False))
            await task
        assert openings.statistics == {"unopened": 2}

    run(work())


def test_an_agent_that_goes_holds_nothing_up():
    async def work() -> None:
        openings, wire = watched(NAME)
        task = asyncio.create_task(openings.open(NAME, reply()))
        assert not await soon(task)
        openings.left(wire)
        assert await soon(task)
        await openings.open(NAME, reply())  # and nobody is asked

    run(work())


def test_an_agent_that_does_not_answer_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dns_openings, "HOLD_S", 0.01)

    async def work() -> None:
        openings, wire = watched(NAME)
        await openings.open(NAME, reply())
        openings.opened(control.Opened(wire.sent[0].number, True))  # too late: no harm

    run(work())


def test_new_names_to_watch_leave_those_who_wait_alone_and_forget_what_was_confirmed():
    async def work() -> None:
        openings, wire = watched(NAME)
        task = asyncio.create_task(openings.open(NAME, reply()))
        await soon(task)
        openings.watch([NAME, "b.c"], wire, [])
        assert not await soon(task)
        openings.opened(control.Opened(wire.sent[0].number, True))
        await task

    run(work())


def test_what_the_cache_holds_is_told_to_an_agent_that_begins_to_watch():
    async def work() -> None:
        openings, wire = Openings(), Wire()
        openings.watch(["*.org"], wire, [reply("a.org"), reply("b.com")])  # type: ignore[arg-type]
        assert [(one.number, one.name) for one in wire.sent] == [(0, "a.org")]

    run(work())
