"""Fetches sets of keys (JWKS) over HTTP: the agent does, never the proxy.

A URL that ends as OpenID Connect Discovery has it names a document that says where the keys are.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from sixfold.errors import UnavailableError

BYTES_MAX = 1 << 20
DISCOVERY = "/.well-known/openid-configuration"


def fetch_keys(url: str, timeout_s: float) -> str:
    """The set as JSON, in one spelling; raises UnavailableError with why there is none."""
    try:
        found = _fetch(url, timeout_s)
        if url.endswith(DISCOVERY) and "jwks_uri" in found:
            found = _fetch(str(found["jwks_uri"]), timeout_s)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"keys of {url}: {_reason(error)}") from error
    if not isinstance(found.get("keys"), list):
        raise UnavailableError(f"keys of {url}: the answer is no JSON Web Key Set")
    return json.dumps({"keys": found["keys"]}, sort_keys=True)


def _fetch(url: str, timeout_s: float) -> dict[str, Any]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no URL of http or https")
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # follows to http(s) only
        body = answer.read(BYTES_MAX + 1)
    if len(body) > BYTES_MAX:
        raise ValueError(f"{url}: more than {BYTES_MAX} bytes")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError(f"{url}: no JSON object")
    return found


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error)
