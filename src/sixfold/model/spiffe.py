"""SPIFFE IDs: what a workload is called in its certificate.

Pure. Source: SPIFFE-ID 1.0, §2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SCHEME = "spiffe://"
LENGTH_MAX = 2048
TRUST_DOMAIN_MAX = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


class SpiffeId(NamedTuple):
    """``path`` is empty (the trust domain itself) or starts with a slash."""

    trust_domain: str
    path: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


def parse(text: str) -> SpiffeId:
    """ValueError says which rule is broken."""
    if len(text.encode()) > LENGTH_MAX:
        raise ValueError(f"{text[:40]!r}…: longer than {LENGTH_MAX} bytes")
    if not text.startswith(SCHEME):
        raise ValueError(f"{text!r}: does not start with {SCHEME}")
    domain, slash, rest = text.removeprefix(SCHEME).partition("/")
    check_trust_domain(domain)
    for segment in rest.split("/") if slash else ():
        if segment in ("", ".", "..") or not _SEGMENT.fullmatch(segment):
            raise ValueError(f"{text!r}: {segment!r} is no path segment; use letters, digits, ._-")
    return SpiffeId(domain, f"/{rest}" if slash else "")


def check_trust_domain(name: str) -> str:
    """The name; ValueError when it cannot be a trust domain."""
    if len(name) > TRUST_DOMAIN_MAX or not _TRUST_DOMAIN.fullmatch(name):
        raise ValueError(f"{name!r}: no trust domain; use a-z, 0-9, . _ and -, up to 255")
    return name


def workload_id(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """What Istio calls it too: ``spiffe://<trust domain>/ns/<ns>/sa/<service account>``."""
    return SpiffeId(trust_domain, f"/ns/{namespace}/sa/{service_account}")
