"""The authority's file: made once, read at every start, never replaced by itself."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from sixfold.errors import HostError
from sixfold.trust.authority import Authority, create, from_pem, to_pem


def authority(path: Path, trust_domain: str) -> Authority:
    """Of this trust domain; HostError when the file is damaged, or another domain's."""
    try:
        found = from_pem(path.read_bytes())
    except FileNotFoundError:
        found = create(trust_domain, datetime.now(UTC))
        _write(path, to_pem(found))
    except (OSError, ValueError) as error:
        raise HostError(
            f"{path}: {error}; put it back from a copy, or remove it: then workloads get "
            "identities of a new authority, which those that run do not know yet"
        ) from None
    if found.trust_domain != trust_domain:
        raise HostError(
            f"{path}: is of trust domain {found.trust_domain!r}, not {trust_domain!r}; start with "
            f"--trust-domain {found.trust_domain}, or remove it for a new authority"
        )
    return found


def _write(path: Path, pem: bytes) -> None:
    """Whole, or not at all; nobody but root may ever read it."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
