"""The keyring's file, and who is told when it changes.

A change is on disk before anybody hears of it. Made once, read at every start, never replaced by
itself; what was there before there were keyrings (``authority.pem``) is taken over.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sixfold.errors import HostError
from sixfold.trust.authority import Authority, JwtAuthority, new_key
from sixfold.trust.keyring import Keyring, due, first, founded, next_step
from sixfold.trust.keyring_text import decode, encode, from_pem

log = logging.getLogger(__name__)

FILE, BEFORE = "authority.json", "authority.pem"
LOOK_S = 3600.0  # at the clock at least, should it be set


class Authorities:
    """Holds the keyring; ``followers`` are called after each change."""

    def __init__(self, path: Path, keyring: Keyring, passphrase: bytes | None) -> None:
        self.keyring = keyring
        self.followers: list[Callable[[], None]] = []
        self._path = path
        self._passphrase = passphrase
        self._moved = asyncio.Event()

    def change(self, keyring: Keyring) -> None:
        """From now on; OSError when it cannot be kept, and then nothing has changed."""
        if keyring is self.keyring:
            return
        write(self._path, encode(keyring, self._passphrase))
        self.keyring = keyring
        self._moved.set()
        for follower in self.followers:
            follower()

    async def run(self, lifetime: timedelta) -> None:
        """Do what time brings: the steps of a rotation, new intermediates."""
        while True:
            deadline, left_s = next_step(self.keyring), LOOK_S
            if deadline is not None:
                left_s = min(LOOK_S, max(0.0, (deadline - datetime.now(UTC)).total_seconds()))
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), left_s)
            except TimeoutError:
                try:
                    self.change(due(self.keyring, datetime.now(UTC), lifetime))
                except OSError as error:
                    log.error("%s: %s", self._path, error.strerror)
                    await asyncio.sleep(LOOK_S / 360)


def authorities(
    state: Path,
    trust_domain: str,
    passphrase: bytes | None = None,
    begin: Callable[[], Authority] | None = None,
) -> Authorities:
    """Of this trust domain; HostError when the file is damaged, or another domain's.

    begin  makes the first authority; None: a root of our own
    """
    path, before = state / FILE, state / BEFORE
    try:
        if path.exists():
            found = decode(path.read_bytes(), passphrase)
        elif before.exists():
            found = from_pem(before.read_bytes())
        elif begin is not None:
            found = founded(begin(), JwtAuthority(new_key()))
        else:
            found = first(trust_domain, datetime.now(UTC))
    except (OSError, ValueError) as error:
        raise HostError(
            f"{path if path.exists() else before}: {error}; put it back from a copy, or remove it: "
            "then workloads get identities of a new authority, which those that run do not know yet"
        ) from None
    if found.trust_domain != trust_domain:
        raise HostError(
            f"{path}: is of trust domain {found.trust_domain!r}, not {trust_domain!r}; start with "
            f"--trust-domain {found.trust_domain}, or remove it for a new authority"
        )
    text = encode(found, passphrase)
    if not path.exists() or (passphrase is None) == (b"ENCRYPTED" in path.read_bytes()):
        write(path, text)  # new, taken over, or encrypted from now on
    before.unlink(missing_ok=True)
    return Authorities(path, found, passphrase)


def write(path: Path, text: bytes) -> None:
    """Whole, or not at all; nobody but root may ever read it."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
