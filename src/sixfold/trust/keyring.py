"""The authorities of one trust domain, and their succession: prepared, active, old.

Pure but for new keys: times are arguments. One authority of each kind is active and signs; a
prepared one is trusted already and signs nothing yet; an old one signs nothing more and is trusted
as long as what it signed is in use. So nobody ever meets a certificate whose root they lack. The
words are those of SPIRE's ``localauthority``: prepare, activate, taint, revoke. ``rotate`` does all
of them by the clock (``due``). Source: SPIFFE Federation §"publish ahead", spire doc/rotation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from cryptography import x509

from sixfold.trust.authority import (
    Authority,
    JwtAuthority,
    PrivateKey,
    create,
    imported,
    new_key,
    renewed,
)

Kind = Literal["x509", "jwt"]
Status = Literal["prepared", "active", "old"]
Signs = TypeVar("Signs", Authority, JwtAuthority)


@dataclass(frozen=True, slots=True)
class Held(Generic[Signs]):
    """One authority, and where it stands.

    tainted  what it signed is to be replaced now, not when it is half over
    step_at  when it is activated (prepared) or leaves (old) by itself; None: when somebody says so
    """

    authority: Signs
    status: Status
    tainted: bool = False
    step_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Keyring:
    """All authorities of a trust domain, the oldest first; exactly one of each kind is active.

    sequence  of the bundle: goes up whenever what others trust changes
    pending   key of an intermediate that somebody elsewhere was asked to sign
    """

    trust_domain: str
    x509_authorities: tuple[Held[Authority], ...]
    jwt_authorities: tuple[Held[JwtAuthority], ...]
    sequence: int = 1
    pending: PrivateKey | None = None

    @property
    def authority(self) -> Authority:
        """That signs certificates."""
        return _active(self.x509_authorities).authority

    @property
    def jwt_authority(self) -> JwtAuthority:
        return _active(self.jwt_authorities).authority

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """What verifies certificates of this domain."""
        return tuple(one.authority.root for one in self.x509_authorities)

    @property
    def trusted(self) -> frozenset[str]:
        """IDs of authorities whose certificates need not be replaced."""
        return frozenset(one.authority.id for one in self.x509_authorities if not one.tainted)


def first(trust_domain: str, now: datetime) -> Keyring:
    return founded(create(trust_domain, now), JwtAuthority(new_key()))


def founded(authority: Authority, jwt: JwtAuthority) -> Keyring:
    """With these two, and no others."""
    held = (Held(authority, "active"),)
    return Keyring(authority.trust_domain, held, (Held(jwt, "active"),))


def prepare(
    keyring: Keyring,
    kind: Kind,
    now: datetime,
    *,
    activate_at: datetime | None = None,
    upstream: Authority | None = None,
) -> Keyring:
    """One more that is trusted and signs nothing yet; ValueError when there is one already."""
    if any(one.status == "prepared" for one in _held(keyring, kind)):
        raise ValueError(f"an {kind} authority is prepared already; activate it, or revoke it")
    if kind == "jwt":
        made = Held(JwtAuthority(new_key()), "prepared", step_at=activate_at)
        return _told(_with(keyring, kind, (*keyring.jwt_authorities, made)))
    authority = upstream or create(keyring.trust_domain, now)
    held = Held(authority, "prepared", step_at=activate_at)
    return _told(_with(keyring, kind, (*keyring.x509_authorities, held)))


def activate(
    keyring: Keyring, kind: Kind, id_: str = "", *, retire_at: datetime | None = None
) -> Keyring:
    """It signs from now on, and who did is old."""

    def step(held: Held[Any], chosen: str) -> Held[Any]:
        if held.authority.id == chosen:
            return Held(held.authority, "active")
        return (
            Held(held.authority, "old", held.tainted, retire_at)
            if held.status == "active"
            else held
        )

    return _step(keyring, kind, id_, "prepared", step)


def taint(keyring: Keyring, kind: Kind, id_: str = "") -> Keyring:
    """What the old one signed is replaced at once."""

    def step(held: Held[Any], chosen: str) -> Held[Any]:
        return replace(held, tainted=True) if held.authority.id == chosen else held

    return _step(keyring, kind, id_, "old", step)


def revoke(keyring: Keyring, kind: Kind, id_: str = "") -> Keyring:
    """It is trusted no more. A prepared one may go, too; the active one may not."""
    old = [one for one in _held(keyring, kind) if one.status != "active"]
    chosen = _choose(kind, old, id_, "old or prepared", keyring)
    left = tuple(one for one in _held(keyring, kind) if one.authority.id != chosen)
    return _told(_with(keyring, kind, left))


def renew(keyring: Keyring, now: datetime, root_key: PrivateKey | None = None) -> Keyring:
    """A new intermediate under the active root; ValueError without the root's key."""
    authority = keyring.authority
    key = root_key or authority.root_key
    if key is None:
        raise ValueError(
            f"the key of root {authority.id} is not here: give it with --root-key, or have a "
            "request signed (sixfold ca csr, ca sign, ca import)"
        )
    return _with_active(keyring, renewed(authority, key, now))


def without_root_key(keyring: Keyring) -> tuple[PrivateKey, Keyring]:
    """The active root's key, and what is left; ValueError when it is not here, or signs leaves."""
    authority = keyring.authority
    if authority.root_key is None:
        raise ValueError(f"the key of root {authority.id} is not here")
    if authority.certificate == authority.root:
        raise ValueError(
            f"root {authority.id} signs certificates itself, it is older than intermediates; "
            "rotate it first: sixfold ca rotate"
        )
    left = replace(authority, root_key=None)
    return authority.root_key, _with_active(keyring, left)


def ask(keyring: Keyring) -> tuple[PrivateKey, Keyring]:
    """The key that somebody elsewhere is to certify; the same until they did."""
    key = keyring.pending or new_key()
    return key, replace(keyring, pending=key)


def take(
    keyring: Keyring,
    chain: Sequence[x509.Certificate],
    root: x509.Certificate | None,
    key: PrivateKey | None,
    now: datetime,
    *,
    activate_at: datetime | None = None,
) -> Keyring:
    """What somebody elsewhere signed: a new intermediate, or under another root one prepared.

    root  None: the active one. key: None: the one that was asked for. activate_at: if prepared
    """
    own = key or keyring.pending
    if own is None:
        raise ValueError("no request is open: sixfold ca csr makes one, or give --key")
    root = root or keyring.authority.root
    authority = imported(tuple(chain), own, root, keyring.trust_domain, now)
    kept = replace(keyring, pending=None if key is None else keyring.pending)
    if root != keyring.authority.root:
        if authority.id in {one.authority.id for one in keyring.x509_authorities}:
            raise ValueError(f"root {authority.id} is here already")
        return prepare(kept, "x509", now, activate_at=activate_at, upstream=authority)
    return _with_active(kept, replace(authority, root_key=keyring.authority.root_key))


# --- by the clock ---------------------------------------------------------------------------------


def due(keyring: Keyring, now: datetime, lifetime: timedelta) -> Keyring:
    """What time has brought: the same keyring when it is nothing.

    lifetime  of what is signed, and of connections that rest on it: so long an old one stays
    """
    kinds: tuple[Kind, ...] = ("x509", "jwt")
    for kind in kinds:
        for one in _held(keyring, kind):
            if one.step_at is None or one.step_at > now:
                continue
            id_ = one.authority.id
            if one.status == "prepared":
                keyring = activate(keyring, kind, id_, retire_at=now + lifetime)
            elif one.status == "old":
                keyring = revoke(keyring, kind, id_)
    if keyring.authority.root_key is not None and now >= _renewal(keyring.authority):
        keyring = renew(keyring, now)
    return keyring


def next_step(keyring: Keyring) -> datetime | None:
    """When ``due`` will have something to do."""
    held = (*_held(keyring, "x509"), *_held(keyring, "jwt"))
    steps = [one.step_at for one in held if one.step_at is not None]
    authority = keyring.authority
    if authority.root_key is not None and authority.certificate != authority.root:
        steps.append(_renewal(authority))
    return min(steps, default=None)


def _renewal(authority: Authority) -> datetime:
    """Half of the intermediate's life; what the root cannot outlive is not renewed."""
    signs = authority.certificate
    if signs == authority.root or signs.not_valid_after_utc >= authority.root.not_valid_after_utc:
        return authority.root.not_valid_after_utc + timedelta(days=1)
    return half_life(authority)


def half_life(authority: Authority) -> datetime:
    """Of the certificate whose key signs."""
    begins, ends = (
        authority.certificate.not_valid_before_utc,
        authority.certificate.not_valid_after_utc,
    )
    return begins + (ends - begins) / 2


# --- parts ----------------------------------------------------------------------------------------


def _step(
    keyring: Keyring,
    kind: Kind,
    id_: str,
    status: Status,
    step: Callable[[Held[Any], str], Held[Any]],
) -> Keyring:
    all_ = _held(keyring, kind)
    chosen = _choose(kind, [one for one in all_ if one.status == status], id_, status, keyring)
    return _with(keyring, kind, tuple(step(one, chosen) for one in all_))


def _choose(kind: Kind, among: Sequence[Held[Signs]], id_: str, what: str, keyring: Keyring) -> str:
    """The one that is meant, by the start of its ID; ValueError when that is not one."""
    found = [one.authority.id for one in among if one.authority.id.startswith(id_)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{len(found)} {kind} authorities are {what}: {', '.join(found)}; name one"
        )
    held = ", ".join(f"{one.authority.id} is {one.status}" for one in _held(keyring, kind))
    raise ValueError(f"no {kind} authority {id_ and id_ + ' '}is {what}: {held}")


def _active(all_: tuple[Held[Signs], ...]) -> Held[Signs]:
    (found,) = [one for one in all_ if one.status == "active"]
    return found


def _with_active(keyring: Keyring, authority: Authority) -> Keyring:
    changed = (
        replace(one, authority=authority) if one.status == "active" else one
        for one in keyring.x509_authorities
    )
    return _with(keyring, "x509", tuple(changed))


def _held(keyring: Keyring, kind: Kind) -> tuple[Held[Any], ...]:
    return keyring.x509_authorities if kind == "x509" else keyring.jwt_authorities


def _with(keyring: Keyring, kind: Kind, held: tuple[Held[Any], ...]) -> Keyring:
    if kind == "x509":
        return replace(keyring, x509_authorities=held)
    return replace(keyring, jwt_authorities=held)


def _told(keyring: Keyring) -> Keyring:
    return replace(keyring, sequence=keyring.sequence + 1)
