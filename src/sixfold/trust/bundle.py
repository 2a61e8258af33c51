"""A trust bundle as others get it: SPIFFE's document, DER, PEM. And theirs, read.

Pure. Source: SPIFFE Trust Domain and Bundle 1.0 §4, X509-SVID 1.0 §6, JWT-SVID 1.0 §6. Keys of
several trust domains are never put together.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sixfold.trust.authority import der, pem
from sixfold.trust.jwt_svid import public_jwk
from sixfold.trust.keyring import Keyring

REFRESH_HINT_S = 300
REFRESH_S = (60, 24 * 3600)  # what a foreign hint is held to


@dataclass(frozen=True, slots=True)
class Bundle:
    """Of another trust domain.

    jwt_keys  its JSON Web Keys for tokens, as they were read
    """

    trust_domain: str
    roots: tuple[x509.Certificate, ...]
    jwt_keys: tuple[dict[str, Any], ...] = ()
    sequence: int | None = None
    refresh_hint_s: int = REFRESH_HINT_S

    @property
    def roots_der(self) -> bytes:
        return b"".join(map(der, self.roots))

    @property
    def key_set(self) -> bytes:
        """Of tokens only, as the Workload API has it."""
        return _text({"keys": list(self.jwt_keys)})


def roots_der(keyring: Keyring) -> bytes:
    return b"".join(map(der, keyring.roots))


def roots_of(bundle: Bundle) -> bytes:
    """PEM."""
    return b"".join(map(pem, bundle.roots))


def roots_pem(keyring: Keyring) -> bytes:
    return b"".join(map(pem, keyring.roots))


def key_set(keyring: Keyring) -> bytes:
    """The JSON Web Key Set that verifies tokens of this domain, as the Workload API has it."""
    return _text({"keys": _jwt_keys(keyring), "spiffe_refresh_hint": REFRESH_HINT_S})


def document(keyring: Keyring) -> bytes:
    """All of the bundle, as a bundle endpoint tells it."""
    roots = [_x509_key(one) for one in keyring.roots]
    return _text(
        {
            "keys": [*roots, *_jwt_keys(keyring)],
            "spiffe_sequence": keyring.sequence,
            "spiffe_refresh_hint": REFRESH_HINT_S,
        }
    )


def read(trust_domain: str, text: bytes | str) -> Bundle:
    """What another domain's endpoint told; ValueError when it is no bundle.

    Keys of unknown use are passed over, as the specification wants.
    """
    try:
        told = json.loads(text)
        keys = told["keys"]
        hint = told.get("spiffe_refresh_hint", REFRESH_HINT_S)
        sequence = told.get("spiffe_sequence")
        if not isinstance(keys, list) or not isinstance(hint, int | float):
            raise TypeError("keys is no list, or the refresh hint no number")
        roots, jwts = [], []
        for key in keys:
            match key.get("use"):
                case "x509-svid":
                    (certificate,) = key["x5c"]
                    roots.append(x509.load_der_x509_certificate(b64decode(certificate)))
                case "jwt-svid" if key.get("kid"):
                    jwts.append(key)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{trust_domain}: what it tells is no SPIFFE bundle: {why}") from None
    held = int(min(max(hint or REFRESH_HINT_S, REFRESH_S[0]), REFRESH_S[1]))
    return Bundle(trust_domain, tuple(roots), tuple(jwts), sequence, held)


def _jwt_keys(keyring: Keyring) -> list[dict[str, str]]:
    return [{"use": "jwt-svid", **public_jwk(one.authority)} for one in keyring.jwt_authorities]


def _x509_key(root: x509.Certificate) -> dict[str, Any]:
    return {"use": "x509-svid", **_public(root), "x5c": [b64encode(der(root)).decode()]}


def _public(root: x509.Certificate) -> dict[str, str]:
    """Of a root from upstream, too: RSA or any curve that JWA has a name for."""
    key = root.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    assert isinstance(key, ec.EllipticCurvePublicKey), "checked when it was taken"
    curve = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}[key.curve.name]
    size, point = (key.curve.key_size + 7) // 8, key.public_numbers()
    return {
        "kty": "EC",
        "crv": curve,
        "x": _number(point.x, size),
        "y": _number(point.y, size),
    }


def _number(number: int, size: int = 0) -> str:
    raw = number.to_bytes(size or (number.bit_length() + 7) // 8, "big")
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _text(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()
