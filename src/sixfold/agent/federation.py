"""Bundles of other trust domains: fetched, kept, and given to workloads.

One loop asks each endpoint when its refresh hint is over, or sooner after a failure. What was last
heard stays in force while an endpoint is away, and over a restart; it goes with its object. A
bundle is never taken for another domain's, nor added to ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sixfold.agent.authority import write
from sixfold.model.federation import (
    FEDERATED_DOMAIN,
    ClusterFederatedTrustDomain,
    ClusterFederatedTrustDomainSpec,
)
from sixfold.store import Objects
from sixfold.trust.bundle import Bundle, read, roots_of

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
BYTES_MAX = 1 << 20
AGAIN_S = (2.0, 60.0)  # after a failure: doubled each time


@dataclass(slots=True)
class _Known:
    """One trust domain."""

    spec: ClusterFederatedTrustDomainSpec
    bundle: Bundle | None
    text: bytes = b""
    due_s: float = 0.0
    heard_s: float = 0.0  # UTC; 0: not since this start
    failures: int = 0
    problem: str = ""


class Federation:
    """``followers`` are called when ``bundles`` have changed."""

    def __init__(self, objects: Objects, state: Path, own: str) -> None:
        self.followers: list[Callable[[], None]] = []
        self._objects = objects
        self._folder = state / "federated"
        self._own = own
        self._known: dict[str, _Known] = {}
        self._wake = asyncio.Event()
        self.follow()

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        """By trust domain."""
        return {name: it.bundle for name, it in self._known.items() if it.bundle is not None}

    def follow(self) -> None:
        """Called after a round: objects may have come, changed or gone."""
        wanted: dict[str, ClusterFederatedTrustDomainSpec] = {}
        for _, stored in sorted(self._objects.of(FEDERATED_DOMAIN).items()):
            one: ClusterFederatedTrustDomain = stored.object
            if one.spec.trust_domain != self._own:  # nobody tells us who we are
                wanted.setdefault(one.spec.trust_domain, one.spec)
        known = {name: it.spec for name, it in self._known.items()}
        if wanted == known:
            return
        for name in known.keys() - wanted.keys():
            del self._known[name]
            (self._folder / name).unlink(missing_ok=True)
        for name, spec in wanted.items():
            if known.get(name) != spec:
                self._known[name] = self._first(name, spec)
        self._tell()
        self._wake.set()

    def _first(self, name: str, spec: ClusterFederatedTrustDomainSpec) -> _Known:
        """What is known before the endpoint is heard: the last word, or the manifest's."""
        path = self._folder / name
        found = _Known(spec, None)
        for text in (path.read_bytes() if path.exists() else b"", spec.trust_domain_bundle):
            if text:
                try:
                    found.bundle = read(name, text)
                    break
                except ValueError as error:
                    found.problem = str(error)
        return found

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            due = [it.due_s for it in self._known.values()]
            left_s = max(0.0, min(due) - time.monotonic()) if due else None
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left_s)
            now_s = time.monotonic()
            those = [(name, it) for name, it in self._known.items() if it.due_s <= now_s]
            await asyncio.gather(*(self._ask(name, it) for name, it in those))

    async def _ask(self, name: str, one: _Known) -> None:
        try:
            text = await asyncio.to_thread(fetch, one.spec, one.bundle)
            bundle = read(name, text)
            if text != one.text:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                write(self._folder / name, text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            one.failures += 1
            problem = str(error) or type(error).__name__
            if problem != one.problem:
                log.warning("trust domain %s: %s: %s", name, one.spec.bundle_endpoint_url, problem)
            one.problem = problem
            one.due_s = time.monotonic() + min(AGAIN_S[0] * 2 ** (one.failures - 1), AGAIN_S[1])
            return
        changed = one.bundle is None or (bundle.roots, bundle.jwt_keys) != (
            one.bundle.roots,
            one.bundle.jwt_keys,
        )
        one.text, one.bundle, one.problem, one.failures = text, bundle, "", 0
        one.heard_s = time.time()
        one.due_s = time.monotonic() + bundle.refresh_hint_s
        if changed and self._known.get(name) is one:
            self._tell()

    def _tell(self) -> None:
        for follower in self.followers:
            follower()

    def show(self) -> list[dict[str, Any]]:
        return [
            {
                "trust_domain": name,
                "url": it.spec.bundle_endpoint_url,
                "profile": it.spec.bundle_endpoint_profile.type,
                "roots": len(it.bundle.roots) if it.bundle else 0,
                "sequence": it.bundle.sequence if it.bundle else None,
                "heard_s": it.heard_s,
                "refresh_hint_s": it.bundle.refresh_hint_s if it.bundle else None,
                "problem": it.problem,
            }
            for name, it in sorted(self._known.items())
        ]


def fetch(spec: ClusterFederatedTrustDomainSpec, known: Bundle | None) -> bytes:
    """What the endpoint tells; OSError or HTTPException when it proves nothing, or tells nothing.

    known  of that trust domain until now: by it the endpoint proves itself with https_spiffe
    """
    url, profile = urlsplit(spec.bundle_endpoint_url), spec.bundle_endpoint_profile
    context = ssl.create_default_context()
    if profile.type == "https_spiffe":
        if known is None or not known.roots:
            raise ConnectionError("no bundle to verify it by; see trustDomainBundle")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # SPIFFE names no hosts
        context.load_verify_locations(cadata=roots_of(known).decode())
    assert url.hostname, "checked when it was applied"
    connection = http.client.HTTPSConnection(
        url.hostname, url.port, timeout=TIMEOUT_S, context=context
    )
    try:
        connection.connect()
        if profile.type == "https_spiffe":
            _check(connection.sock.getpeercert() or {}, profile.endpoint_spiffe_id)
        connection.request("GET", f"{url.path or '/'}{'?' if url.query else ''}{url.query}")
        answer = connection.getresponse()
        text = answer.read(BYTES_MAX + 1)
    finally:
        connection.close()
    if answer.status != 200:
        raise ConnectionError(f"it answered {answer.status}")
    if len(text) > BYTES_MAX:
        raise ConnectionError(f"its answer is longer than {BYTES_MAX >> 20} MiB")
    return text


def _check(certificate: Mapping[str, Any], wanted: str) -> None:
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if names != [wanted]:
        raise ConnectionError(f"it proved to be {', '.join(names) or 'nobody'}, not {wanted}")
