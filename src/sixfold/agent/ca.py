"""``sixfold ca``: what the authorities are, and their succession, as the API is asked for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from sixfold.agent.authority import Authorities
from sixfold.agent.upstream import Upstream
from sixfold.errors import HostError, UnavailableError
from sixfold.model.config import Config
from sixfold.serve.api import CaRequest
from sixfold.trust import keyring as rings
from sixfold.trust.authority import key_from_pem, key_pem, pem, request
from sixfold.trust.keyring import Held, Keyring


class Ca:
    """Changes the keyring; ``told`` returns when the proxy has what it is offered."""

    def __init__(
        self,
        authorities: Authorities,
        federated: Callable[[], list[dict[str, Any]]],
        told: Callable[[], Awaitable[None]],
        upstream: Upstream | None = None,
    ) -> None:
        self._authorities = authorities
        self._told = told
        self._upstream = upstream
        self.federated = federated

    def show(self) -> dict[str, Any]:
        ring = self._authorities.keyring
        return {
            "trust_domain": ring.trust_domain,
            "sequence": ring.sequence,
            "upstream": self._upstream.show() if self._upstream is not None else None,
            "request_open": ring.pending is not None,
            "federated": self.federated(),
            "authorities": [
                *({**_row(one, "x509"), **_certificates(one)} for one in ring.x509_authorities),
                *(_row(one, "jwt") for one in ring.jwt_authorities),
            ],
        }

    async def change(self, asked: CaRequest) -> dict[str, Any]:
        """ValueError says why not, and then nothing has changed."""
        if asked.verb == "renew" and not asked.key and self._upstream is not None:
            try:
                await self._upstream.renew()
            except OSError as error:
                raise UnavailableError(str(error)) from None
            return self.show()
        ring, now = self._authorities.keyring, datetime.now(UTC)
        extra: dict[str, Any] = {}
        if asked.verb == "csr":
            key, changed = rings.ask(ring)
            extra["request"] = request(ring.trust_domain, key).decode()
        elif asked.verb == "root-key":
            extra["key"] = key_pem(rings.without_root_key(ring)[0]).decode()
            changed = ring
        else:
            changed = self._changed(ring, asked, now)
        self._authorities.change(changed)
        if changed is not ring:
            await self._told()
        return {**self.show(), **extra}

    def _changed(self, ring: Keyring, asked: CaRequest, now: datetime) -> Keyring:
        match asked.verb:
            case "rotate":
                at = now + timedelta(seconds=asked.overlap_s)
                return rings.prepare(ring, asked.kind, now, activate_at=at)
            case "prepare":
                return rings.prepare(ring, asked.kind, now)
            case "activate":
                return rings.activate(ring, asked.kind, asked.id)
            case "taint":
                return rings.taint(ring, asked.kind, asked.id)
            case "revoke":
                return rings.revoke(ring, asked.kind, asked.id)
            case "renew":
                key = key_from_pem(asked.key.encode()) if asked.key else None
                return rings.renew(ring, now, key)
            case "forget-root-key":
                if asked.id != ring.authority.id:
                    raise ValueError(f"root {asked.id} is not the active one any more")
                return rings.without_root_key(ring)[1]
            case "import":
                chain = x509.load_pem_x509_certificates(asked.certificates.encode())
                root = x509.load_pem_x509_certificate(asked.root.encode()) if asked.root else None
                key = key_from_pem(asked.key.encode()) if asked.key else None
                return rings.take(ring, chain, root, key, now)
            case _:
                raise ValueError(f"{asked.verb!r}: nothing that is done with an authority")


def passphrase(config: Config) -> bytes | None:
    """Of the keyring's file: the first line of another file; None when it is not encrypted."""
    if not config.ca_passphrase_file:
        return None
    path = Path(config.ca_passphrase_file)
    try:
        found = path.read_bytes().partition(b"\n")[0]
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}; without it no key can be read") from None
    if not found:
        raise HostError(f"{path}: is empty; without a passphrase no key can be read")
    return found


def _row(held: Held[Any], kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "id": held.authority.id,
        "status": held.status,
        "tainted": held.tainted,
        "step_at": held.step_at.isoformat() if held.step_at else None,
    }


def _certificates(held: Held[Any]) -> dict[str, Any]:
    authority = held.authority
    signs = authority.certificate
    return {
        "root": pem(authority.root).decode(),
        "root_key": "here" if authority.root_key is not None else "elsewhere",
        "root_expires": authority.root.not_valid_after_utc.isoformat(),
        "chain": "".join(pem(one).decode() for one in authority.chain),
        "signs_directly": signs == authority.root,
        "expires": signs.not_valid_after_utc.isoformat(),
    }
