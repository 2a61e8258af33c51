"""Stub domains: names of the world that resolvers of their own know, as kube-dns calls them.

Pure. A question goes to the servers of the longest domain that it is in, and to no others: a name
of a private zone is never asked of the world, and what the world says of it is never believed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

Servers = tuple[str, ...]


def parse_stub(text: str) -> tuple[str, Servers]:
    """``corp.example=192.0.2.53,[2001:db8::53]:54``: the domain in lower case, and who answers."""
    domain, _, servers = text.partition("=")
    return domain.rstrip(".").lower(), tuple(filter(None, servers.split(",")))


def stubs_of(texts: Iterable[str]) -> dict[str, Servers]:
    """Servers by domain; a domain that is given twice has the servers of both."""
    stubs: dict[str, Servers] = {}
    for domain, servers in map(parse_stub, texts):
        stubs[domain] = stubs.get(domain, ()) + servers
    return stubs


def stub_of(name: str, domains: Collection[str]) -> str | None:
    """The longest domain that a name (lower case, no final dot) is in."""
    while name:
        if name in domains:
            return name
        _, _, name = name.partition(".")
    return None
