"""Whom to forward to: upstreams as configured, or as the host's resolv.conf names them; stubs."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from sixfold.discovery.stubs import stub_of, stubs_of
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6

SERVERS_MAX = 3  # of a resolv.conf: MAXNS, as libc has it

log = logging.getLogger("sixfold.dns")


class Upstream(NamedTuple):
    """Where to forward to."""

    host: str
    port: int = 53

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


def parse_upstream(text: str) -> Upstream:
    """``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353``."""
    host, port = text, 53
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = int(rest.removeprefix(":") or 53)
    elif text.count(":") == 1:
        host, _, rest = text.partition(":")
        port = int(rest)
    ip_address(host.partition("%")[0])
    return Upstream(host, port)


def parse_upstreams(texts: Sequence[str]) -> tuple[Upstream, ...]:
    """Those that are addresses, ourselves left out: a question would go round for ever."""
    found = []
    for text in texts:
        try:
            found.append(parse_upstream(text))
        except ValueError as error:
            log.warning("upstream %r: %s; left out", text, error)
    own = {str(RESOLVER_IPV4), str(RESOLVER_IPV6)}
    return tuple(upstream for upstream in found if upstream.host not in own)


class Upstreams:
    """Whom to ask for a name: the servers of its stub domain, else everybody's."""

    def __init__(self, others: Callable[[], Sequence[Upstream]], stubs: Sequence[str] = ()) -> None:
        self._others = others
        self._stubs = {
            domain: parse_upstreams(servers) for domain, servers in stubs_of(stubs).items()
        }

    def __call__(self, name: str) -> Sequence[Upstream]:
        domain = stub_of(name, self._stubs)
        return self._others() if domain is None else self._stubs[domain]


class HostResolvers:
    """The nameservers of the host's resolv.conf, read again when the file changes."""

    CHECK_PERIOD_S = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked_s = 0.0
        self._stamp: tuple[int, int] | None = None
        self._found: tuple[Upstream, ...] = ()

    def __call__(self) -> Sequence[Upstream]:
        now_s = time.monotonic()
        if self._stamp is None or now_s - self._checked_s >= self.CHECK_PERIOD_S:
            self._checked_s = now_s
            self._read()
        return self._found

    def _read(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._stamp, self._found = stamp, parse_upstreams(self._nameservers())
        except (OSError, UnicodeDecodeError):
            self._found = ()

    def _nameservers(self) -> list[str]:
        lines = (line.split() for line in self._path.read_text().splitlines())
        found = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
        return found[:SERVERS_MAX]
