"""Keys of issuers: fetched for RequestAuthentications, kept, and fetched again.

What cannot be fetched is what it was before; what never was is an empty set, by which no token is
good. ``status`` says which, and why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from sixfold.errors import UnavailableError
from sixfold.host.jwks import fetch_keys
from sixfold.model.duration import seconds
from sixfold.model.requestauthentication import RequestAuthentication

log = logging.getLogger(__name__)

REFRESH_S = 20 * 60.0  # Istio's
AGAIN_S = 5.0  # after a failure
TIMEOUT_S = 5.0  # unless a rule says otherwise


class KeySets:
    """``keys`` by where they are; another mapping when one changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.keys: Mapping[str, str] = MappingProxyType({})
        self.problems: dict[str, str] = {}
        self._changed = changed
        self._wanted: dict[str, float] = {}  # timeouts
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._tried = asyncio.Condition()

    def follow(self, policies: Iterable[object]) -> None:
        """Whose keys are wanted, from now on."""
        wanted: dict[str, float] = {}
        for policy in policies:
            for rule in policy.spec.jwt_rules if isinstance(policy, RequestAuthentication) else ():
                if at := rule.keys_at:
                    wanted[at] = seconds(rule.timeout) if rule.timeout else TIMEOUT_S
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._due = {at: self._due.get(at, 0.0) for at in wanted}
        self.problems = {at: said for at, said in self.problems.items() if at in wanted}
        self.keys = MappingProxyType({at: it for at, it in self.keys.items() if at in wanted})
        self._wake.set()

    async def settled(self) -> None:
        """Return when all that are wanted were asked for, whatever came of it."""
        async with self._tried:
            await self._tried.wait_for(lambda: all(self._due.values()))

    async def run(self) -> None:
        while True:
            now = time.monotonic()
            await asyncio.gather(*(self._fetch(at) for at, due in self._due.items() if due <= now))
            async with self._tried:
                self._tried.notify_all()
            next_s = min(self._due.values(), default=None)
            self._wake.clear()
            if next_s is not None and next_s <= time.monotonic():
                continue
            timeout_s = None if next_s is None else next_s - time.monotonic()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout_s)
            except TimeoutError:
                continue

    async def _fetch(self, at: str) -> None:
        found: str | UnavailableError
        try:
            found = await asyncio.to_thread(fetch_keys, at, self._wanted[at])
        except UnavailableError as error:
            found = error
        if at not in self._wanted:  # any more
            return
        if isinstance(found, UnavailableError):
            kept = "; those of before hold" if at in self.keys else "; no token is good"
            if self.problems.get(at) != f"{found}{kept}":
                log.error("%s%s", found, kept)
            self.problems[at] = f"{found}{kept}"
            self._due[at] = time.monotonic() + AGAIN_S
            return
        self.problems.pop(at, None)
        self._due[at] = time.monotonic() + REFRESH_S
        if self.keys.get(at) != found:
            self.keys = MappingProxyType({**self.keys, at: found})
            self._changed()
