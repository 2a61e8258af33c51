"""Authorities elsewhere sign our intermediate: cfssl and openssl, as they are."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from sixfold.model.spiffe import workload_id
from sixfold.trust import keyring as rings
from sixfold.trust.authority import issue, key_from_pem, pem, request
from sixfold.trust.keyring import first

HOUR = timedelta(hours=1)
WEB = workload_id("shop.example", "shop", "web")
P256 = {"algo": "ecdsa", "size": 256}


def run(*argv: object, stdin: str | None = None) -> str:
    done = subprocess.run(list(map(str, argv)), input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verified(ring: rings.Keyring, directory: Path) -> str:
    """What openssl says of a workload's chain, strictly, by the roots that are told."""
    svid = rings.activate(ring, "x509").authority
    leaf, roots = directory / "leaf.pem", directory / "roots.pem"
    made = issue(svid, WEB, datetime.now(UTC), HOUR)
    leaf.write_bytes(made.chain_pem)
    roots.write_bytes(pem(svid.root))
    openssl = ("openssl", "verify", "-x509_strict", "-purpose", "sslserver")
    return run(*openssl, "-CAfile", roots, "-untrusted", leaf, leaf)


@pytest.mark.skipif(shutil.which("cfssl") is None, reason="needs cfssl (Debian: golang-cfssl)")
@pytest.mark.parametrize("key", [P256, {"algo": "rsa", "size": 2048}], ids=["ecdsa", "rsa"])
def test_cfssl_signs_the_request_and_workloads_verify_by_its_root(tmp_path: Path, key: dict):
    made = json.loads(
        run("cfssl", "gencert", "-initca", "-", stdin=json.dumps({"CN": "Shop", "key": key}))
    )
    root, root_key, csr, config = (tmp_path / name for name in ("root", "key", "csr", "config"))
    root.write_text(made["cert"])
    root_key.write_text(made["key"])
    constraint = {"is_ca": True, "max_path_len": 0, "max_path_len_zero": True}
    profile = {"usages": ["cert sign", "crl sign"], "expiry": "8760h", "ca_constraint": constraint}
    config.write_text(json.dumps({"signing": {"default": profile}}))
    asked, ring = rings.ask(first("shop.example", datetime.now(UTC)))
    csr.write_bytes(request("shop.example", asked))
    arguments = ("-ca", root, "-ca-key", root_key, "-config", config, csr)
    signed = json.loads(run("cfssl", "sign", *arguments))["cert"]
    chain = x509.load_pem_x509_certificates(signed.encode())
    above = x509.load_pem_x509_certificate(made["cert"].encode())
    ring = rings.take(ring, chain, above, None, datetime.now(UTC))
    assert verified(ring, tmp_path) == f"{tmp_path / 'leaf.pem'}: OK\n"


def test_an_intermediate_and_its_key_come_from_files(tmp_path: Path):
    """As Istio's ``cacerts``: a chain of two below the root; the key is PKCS#8."""
    names = ("root", "upper", "lower")
    for number, name in enumerate(names):
        key, csr, cert = (tmp_path / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        run("openssl", "genpkey", *curve, "-out", key)
        run("openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", csr)
        extensions = tmp_path / "extensions"
        extensions.write_text(
            f"basicConstraints=critical,CA:TRUE,pathlen:{2 - number}\n"
            "keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
            + ("authorityKeyIdentifier=keyid\n" if number else "")
        )
        above = tmp_path / names[number - 1]
        by = ("-CA", f"{above}.pem", "-CAkey", f"{above}.key", "-CAcreateserial")
        signing = by if number else ("-signkey", key)
        made = ("-days", "30", "-extfile", extensions, "-out", cert)
        run("openssl", "x509", "-req", "-in", csr, *signing, *made)
    chain = [
        x509.load_pem_x509_certificate((tmp_path / f"{name}.pem").read_bytes())
        for name in ("lower", "upper", "root")
    ]
    key = key_from_pem((tmp_path / "lower.key").read_bytes())
    now = datetime.now(UTC)
    ring = rings.take(first("shop.example", now), chain, chain[-1], key, now)
    assert verified(ring, tmp_path) == f"{tmp_path / 'leaf.pem'}: OK\n"
