"""An authority elsewhere signs our intermediate, asked by itself: the PKI of Vault, or of OpenBao.

A new host begins under its root: without it there is no identity at all. Later it is asked for the
next intermediate when half of this one's life is over, or when it has another root, which is then
prepared and activated as in any rotation. While it is away, what it signed last stays in force.
Source: Vault API, PKI secrets engine, "sign intermediate" and "read CA certificate chain".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from sixfold.agent.authority import Authorities
from sixfold.errors import HostError
from sixfold.model.config import Config
from sixfold.trust import keyring as rings
from sixfold.trust.authority import (
    INTERMEDIATE_LIFETIME,
    Authority,
    imported,
    key_identifier,
    new_key,
    request,
)

log = logging.getLogger(__name__)

LOOK_S = 3600.0  # at its root, and to renew the token
AGAIN_S = (2.0, 300.0)  # after a failure: doubled each time
TIMEOUT_S = 10
OVERLAP = timedelta(seconds=30)  # a new root is trusted for so long before it signs

Chain = tuple[x509.Certificate, ...]


class Upstream:
    """Follows one; ``told`` returns when the proxy has what a change brought."""

    def __init__(
        self, config: Config, authorities: Authorities, told: Callable[[], Awaitable[None]]
    ) -> None:
        self._config = config
        self._authorities = authorities
        self._told = told
        self._problem = ""
        self._renewed = asyncio.Event()

    def show(self) -> dict[str, str]:
        return {
            "address": self._config.ca_vault_address,
            "mount": self._config.ca_vault_mount,
            "problem": self._problem,
        }

    async def run(self) -> None:
        """Look at what it says, until cancelled."""
        again_s, most_s = AGAIN_S
        while True:
            try:
                await self._look()
                again_s, self._problem = AGAIN_S[0], ""
                wait_s = self._left_s()
            except (OSError, ValueError) as error:
                if str(error) != self._problem:
                    log.warning("upstream authority: %s", error)
                self._problem = str(error)
                wait_s, again_s = again_s, min(again_s * 2, most_s)
            self._renewed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._renewed.wait(), wait_s)

    async def renew(self) -> None:
        """Take a new intermediate now; OSError, ValueError: it gave none, all is as it was."""
        key, ring = rings.ask(self._authorities.keyring)
        self._authorities.change(ring)
        csr = request(ring.trust_domain, key)
        chain = await asyncio.to_thread(_signed, self._config, csr)
        now = datetime.now(UTC)
        ring = self._authorities.keyring  # it may have moved on meanwhile
        self._authorities.change(
            rings.take(ring, chain, chain[-1], None, now, activate_at=now + OVERLAP)
        )
        self._renewed.set()
        await self._told()

    async def _look(self) -> None:
        root = await asyncio.to_thread(_root, self._config)
        ring = self._authorities.keyring
        if root == ring.authority.root:
            if datetime.now(UTC) >= rings.half_life(ring.authority):
                await self.renew()
        elif key_identifier(root) not in {one.authority.id for one in ring.x509_authorities}:
            await self.renew()

    def _left_s(self) -> float:
        left = rings.half_life(self._authorities.keyring.authority) - datetime.now(UTC)
        return max(1.0, min(LOOK_S, left.total_seconds()))


def begin(config: Config) -> Authority:
    """The first one of this host, under the upstream's root; HostError when it gives none."""
    key = new_key()
    try:
        chain = _signed(config, request(config.trust_domain, key))
        return imported(chain, key, chain[-1], config.trust_domain, datetime.now(UTC))
    except (OSError, ValueError) as error:
        raise HostError(
            f"{error}; a new host has no identities before it has answered: "
            "start it, or begin with a root of our own: --ca-vault-address none"
        ) from None


# --- what is asked of it --------------------------------------------------------------------------


def _signed(config: Config, csr: bytes) -> Chain:
    """A new intermediate, up to the root."""

    def ask(client: Any) -> Chain:
        answer = client.secrets.pki.sign_intermediate(
            csr.decode(),
            "",
            extra_params={
                "use_csr_values": True,
                "ttl": f"{INTERMEDIATE_LIFETIME.total_seconds():.0f}s",
            },
            mount_point=config.ca_vault_mount,
        )
        above = answer["data"].get("ca_chain") or [answer["data"]["issuing_ca"]]
        return _chain("\n".join([answer["data"]["certificate"], *above]))

    return _with_client(config, ask)


def _root(config: Config) -> x509.Certificate:
    def ask(client: Any) -> Chain:
        mount = config.ca_vault_mount
        return _chain(client.secrets.pki.read_ca_certificate_chain(mount_point=mount))

    return _with_client(config, ask)[-1]


def _chain(text: str) -> Chain:
    """ValueError when it does not end in a root. OpenBao says what it signed twice."""
    chain = tuple(dict.fromkeys(x509.load_pem_x509_certificates(text.encode())))
    if chain[-1].issuer != chain[-1].subject:
        issuer = chain[-1].issuer.rfc4514_string()
        raise ValueError(f"its chain ends below {issuer}; let the mount know its root, too")
    return chain


def _with_client(config: Config, ask: Callable[[Any], Chain]) -> Chain:
    """OSError, ValueError: where, and what it said."""
    from hvac import Client
    from hvac.exceptions import VaultError

    where = f"{config.ca_vault_address}/v1/{config.ca_vault_mount}"
    token = ""
    if config.ca_vault_token_file:
        token = Path(config.ca_vault_token_file).read_text().strip()
    try:
        client = Client(
            url=config.ca_vault_address,
            token=token or None,
            verify=config.ca_vault_cacert or True,
            timeout=TIMEOUT_S,
        )
        with contextlib.suppress(VaultError):  # one that lives for ever need not be renewed
            client.auth.token.renew_self()
        return ask(client)
    except VaultError as error:
        said = "; ".join(error.errors or []) if error.errors else str(error)
        raise ValueError(f"{where}: {said or type(error).__name__}") from None
    except KeyError as error:
        raise ValueError(f"{where}: answers without {error}") from None
    except OSError as error:  # requests' own errors are such
        cause: BaseException = error
        while cause.__cause__ or cause.__context__:
            cause = cause.__cause__ or cause.__context__ or cause
        raise OSError(f"{where}: {cause}") from None
