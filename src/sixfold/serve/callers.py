"""Who calls at the catalogue's door, and what for.

The operator is who comes by the unix socket, or shows the token. A pod is who comes from a pod's
address: the datapath lets nobody send from another's. Whoever else reaches the door, a process of
the host over loopback, may read and no more.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request


class DeniedError(Exception):
    """Not for this caller; the message says whose it is."""


@dataclass(frozen=True, slots=True)
class Caller:
    """``pod`` and its ``namespace`` when it is one; the operator asks from ``default``."""

    kind: Literal["operator", "pod", "reader"]
    address: str = ""
    pod: str = ""  # namespace/name
    namespace: str = "default"

    @property
    def who(self) -> str:
        return self.pod or self.kind


@dataclass(frozen=True, slots=True)
class Door:
    """One door; ``operator``: whoever comes through it may do all that root may."""

    operator: bool
    token: str = ""


def caller_of(
    request: Request, door: Door, pods: Mapping[str, str], local: frozenset[str]
) -> Caller:
    """Who this is; DeniedError when it cannot be said.

    pods   ``namespace/name`` by address
    local  the node's own addresses
    """
    if door.operator:
        return Caller("operator")
    if shown := _token(request):
        if not hmac.compare_digest(shown.encode(), door.token.encode()):
            raise DeniedError("ACL not found: this is not the catalogue's token")
        return Caller("operator")
    address = request.client.host if request.client else ""
    if pod := pods.get(address):
        return Caller("pod", address, pod, pod.partition("/")[0])
    if address in local or address.startswith("127.") or address == "::1":
        return Caller("reader", address)
    raise DeniedError(f"Permission denied: {address or 'nobody'} is no pod and not this host")


def _token(request: Request) -> str:
    bearer = request.headers.get("authorization", "")
    return (
        request.headers.get("x-consul-token", "")
        or request.query_params.get("token", "")
        or (bearer.removeprefix("Bearer ") if bearer.startswith("Bearer ") else "")
    )
