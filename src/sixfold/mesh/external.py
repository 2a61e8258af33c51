"""With what does the proxy begin TLS to an external service, and is all of it there?

Pure, and without Envoy's messages: ``explain`` and the status ask, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sixfold.mesh.certificates import Shown, authorities, shown
from sixfold.mesh.condition import Condition, told
from sixfold.model.serviceentry import AUTHORITIES, DestinationRule
from sixfold.model.world import World
from sixfold.policy.external import External, externals


class Credentials(NamedTuple):
    """``pem``: who may vouch for the server, empty: whom the host trusts; ``shows``: of MUTUAL."""

    pem: bytes = b""
    shows: Shown | None = None
    secret: str = ""


def credentials(world: World, one: External) -> Credentials | str:
    """Or why nobody is led there; the text tells no part of a secret."""
    assert one.tls is not None, "of services whose TLS is ours to begin"
    if not one.tls.credential_name:
        return Credentials()
    name = f"{one.rule.partition('/')[0]}/{one.tls.credential_name}"
    secret = world.secrets.get(name)
    if secret is None:
        return f"there is no secret {name}"
    pem = next(filter(None, map(secret.value, AUTHORITIES)), b"")
    if pem and not authorities(pem):
        return f"secret {name} has no certificates in {AUTHORITIES[0]}"
    if one.tls.mode != "MUTUAL":
        return Credentials(pem, None, name)
    shows = shown(secret)
    return f"secret {name}: {shows}" if isinstance(shows, str) else Credentials(pem, shows, name)


def names_of(one: External) -> tuple[str, ...]:
    """Of which the server's certificate must have one."""
    assert one.tls is not None, "of services whose TLS is ours to begin"
    return tuple(one.tls.subject_alt_names) or (one.tls.sni or one.host,)


def status_of_rule(world: World, rule: DestinationRule) -> dict[str, Any]:
    """``status.conditions``: whether it is about an external service, and has what it needs."""
    meta = rule.metadata
    mine = [one for one in externals(world) if one.rule == f"{meta.namespace}/{meta.name}"]
    return {"conditions": told(meta, _conditions(world, mine))}


def _conditions(world: World, mine: list[External]) -> Iterable[Condition]:
    if not mine:
        text = "no ServiceEntry has its host with a port of protocol HTTP that it begins TLS for"
        yield Condition("Accepted", False, "NoMatchingHost", text)
        return
    ports = ", ".join(f"{one.host}:{one.port}" for one in mine)
    yield Condition("Accepted", True, "Accepted", f"in force for {ports}")
    lacks = [why for one in mine if isinstance(why := credentials(world, one), str)]
    if lacks:
        text = f"{lacks[0]}; requests are answered 502"
        yield Condition("ResolvedRefs", False, "InvalidCredential", text)
    else:
        yield Condition("ResolvedRefs", True, "ResolvedRefs", "")
