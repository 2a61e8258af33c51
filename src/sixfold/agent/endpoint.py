"""The certificate of the bundle's endpoint: files of the web's authorities, or an SVID of its own.

The first is looked at again and again, since whoever renews it just writes it; the second is
renewed at half of its life, and when its authority is to be trusted no more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sixfold.agent.authority import Authorities
from sixfold.errors import HostError
from sixfold.model.config import Config
from sixfold.model.spiffe import SpiffeId
from sixfold.trust.authority import X509Svid, issue

log = logging.getLogger(__name__)

PATH = "/sixfold/bundle-endpoint"  # of its SPIFFE ID
LOOK_S = 5.0


class Endpoint:
    """``tls`` shows what is valid now, to every new handshake."""

    def __init__(self, config: Config, authorities: Authorities) -> None:
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._authorities = authorities
        self._pem = Path(config.bundle_endpoint_pem) if config.bundle_endpoint_pem else None
        self._lifetime = timedelta(seconds=config.svid_ttl_s)
        self._svid: X509Svid | None = None
        self._read_ns = 0
        try:
            self._look()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise HostError(
                f"{self._pem}: {error}; it is to have the certificates and the key of "
                "--bundle-endpoint, in PEM"
            ) from None

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._look()
            except (OSError, ValueError) as error:
                log.error("%s: %s; the certificate before is shown", self._pem, error)

    def _look(self) -> None:
        if self._pem is not None:
            written_ns = self._pem.stat().st_mtime_ns
            if written_ns != self._read_ns:
                self.tls.load_cert_chain(self._pem)
                self._read_ns = written_ns
            return
        ring, now, svid = self._authorities.keyring, datetime.now(UTC), self._svid
        if svid is not None and svid.renew_at > now and svid.authority in ring.trusted:
            return
        self._svid = svid = issue(
            ring.authority, SpiffeId(ring.trust_domain, PATH), now, self._lifetime
        )
        _show(self.tls, svid)


def _show(tls: ssl.SSLContext, svid: X509Svid) -> None:
    """OpenSSL's binding reads files only: this one has no name, and is only in memory."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(svid.chain_pem + svid.key_pem)
        tls.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
