"""Two Sixfolds of different trust domains: bundles told to each other, workloads that meet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import SIXFOLD, System, running
from .places import OPEN, manifest, pod, policy, service
from .test_workload_api import web_certificate

pytestmark = pytest.mark.root

SHOP, PARTNER = "shop.example", "partner.example"
SHOP_AT, PARTNER_AT = "192.0.2.1", "192.0.2.2"
PORT = 30443
# One end of a connection with mutual TLS between trust domains: whoever comes from the other one is
# verified by that one's roots and by no others.
TLS = """
import socket, ssl, sys, tempfile
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import TrustDomain, WorkloadApiClient
with WorkloadApiClient() as client:
    told = client.fetch_x509_context()
svid, theirs = told.default_svid, TrustDomain(sys.argv[2])
bundle = told.x509_bundle_set.get_bundle_for_trust_domain(theirs)
if bundle is None:
    sys.exit(f"{theirs}: not federated")
with tempfile.NamedTemporaryFile() as own, tempfile.NamedTemporaryFile() as roots:
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    own.write(b"".join(one.public_bytes(Encoding.PEM) for one in svid.cert_chain) + key)
    roots.write(b"".join(one.public_bytes(Encoding.PEM) for one in bundle.x509_authorities))
    own.flush(); roots.flush()
    server = sys.argv[1] == "serve"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(own.name)
    context.load_verify_locations(roots.name)
if server:
    listener = socket.create_server(("0.0.0.0", 8443))
    print("ready", flush=True)
    raw, _ = listener.accept()
else:
    raw = socket.create_connection((sys.argv[3], int(sys.argv[4])), timeout=10)
with context.wrap_socket(raw, server_side=server) as secured:
    if server:
        secured.recv(5)
        secured.sendall(b"there")
    else:
        secured.sendall(b"hello")
        secured.recv(5)
    names = [name for kind, name in secured.getpeercert()["subjectAltName"] if kind == "URI"]
    print(secured.version(), *names)
"""
KNOWN = """
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    names = [one.trust_domain.name for one in client.fetch_x509_bundles().bundles]
    tokens = [one.trust_domain.name for one in client.fetch_jwt_bundles().bundles]
    assert sorted(names) == sorted(tokens)
    print(*sorted(names))
"""
FOREIGN_TOKEN = """
import sys
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    print(client.validate_jwt_svid(sys.argv[1], audience="db").spiffe_id)
"""
TOKEN = """
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    print(client.fetch_jwt_svid(audience={"db"}).token)
"""


@dataclass(frozen=True)
class Two:
    shop: System
    partner: System


def federated(domain: str, at: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": domain.partition(".")[0]},
        "spec": {
            "trustDomain": domain,
            "bundleEndpointURL": f"https://{at}:8443/bundle",
            "bundleEndpointProfile": {"type": "https_web"},
            **spec,
        },
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """The shop's endpoint proves itself as the web does, the partner's by its own SVID."""
    with (
        running(tmp_path_factory.mktemp("shop")) as shop,
        running(tmp_path_factory.mktemp("partner")) as partner,
    ):
        link = ("ip", "link", "add", "wire", "type", "veth", "peer", "wire", "netns")
        for done in (
            shop.on_host(*link, str(partner.host)),
            shop.on_host("ip", "addr", "add", f"{SHOP_AT}/24", "dev", "wire"),
            partner.on_host("ip", "addr", "add", f"{PARTNER_AT}/24", "dev", "wire"),
            shop.on_host("ip", "link", "set", "wire", "up"),
            partner.on_host("ip", "link", "set", "wire", "up"),
        ):
            assert done.returncode == 0, done.stderr
        pem = web_certificate(shop, SHOP_AT)
        partner.environment["SSL_CERT_FILE"] = f"{pem}.crt"
        opened = policy("open", None, **OPEN)
        shop.up(
            *("--trust-domain", SHOP, "--bundle-endpoint", f"{SHOP_AT}:8443"),
            *("--bundle-endpoint-pem", str(pem)),
            manifest=manifest(pod("web", serviceAccountName="web"), opened),
        )
        node_port = [{"port": 8443, "nodePort": PORT}]
        partner.up(
            *("--trust-domain", PARTNER, "--bundle-endpoint", f"{PARTNER_AT}:8443"),
            manifest=manifest(pod("db"), opened, service("db", type="NodePort", ports=node_port)),
        )
        yield Two(shop, partner)


def in_pod(system: System, name: str, program: str, *argv: str, check: bool = True) -> Any:
    return system.sixfold("exec", name, "--", sys.executable, "-c", program, *argv, check=check)


def meet(two: Two) -> tuple[str, str]:
    """What the client of the shop and the server of the partner learn of each other."""
    command = (*SIXFOLD, "exec", "db", "--", sys.executable, "-c", TLS, "serve", SHOP)
    server = subprocess.Popen(
        ["nsenter", f"--net={two.partner.host}", *command],
        env=two.partner.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    assert server.stdout.readline() == "ready\n"
    client = in_pod(two.shop, "web", TLS, "dial", PARTNER, PARTNER_AT, str(PORT), check=False)
    said, wrong = server.communicate(timeout=20)
    return client.stdout or client.stderr, said or wrong


def heard(system: System) -> bool:
    return all(one["heard_s"] for one in system.json("ca", "federated")["federated"])


def test_workloads_of_two_trust_domains_meet_while_both_are_federated(two: Two) -> None:
    assert in_pod(two.shop, "web", KNOWN).stdout == f"{SHOP}\n"
    told = two.partner.sixfold("svid", "bundle", "--spiffe").stdout
    spiffe = {
        "type": "https_spiffe",
        "endpointSPIFFEID": f"spiffe://{PARTNER}/sixfold/bundle-endpoint",
    }
    two.shop.apply(
        manifest(
            federated(PARTNER, PARTNER_AT, bundleEndpointProfile=spiffe, trustDomainBundle=told)
        )
    )
    two.partner.apply(manifest(federated(SHOP, SHOP_AT)))
    for system in (two.shop, two.partner):
        assert system.eventually(lambda system=system: heard(system))
    assert in_pod(two.shop, "web", KNOWN).stdout == f"{PARTNER} {SHOP}\n"

    client, server = meet(two)
    assert client == f"TLSv1.3 spiffe://{PARTNER}/ns/default/sa/default\n"
    assert server == f"TLSv1.3 spiffe://{SHOP}/ns/default/sa/web\n"
    token = in_pod(two.shop, "web", TOKEN).stdout.strip()
    found = in_pod(two.partner, "db", FOREIGN_TOKEN, token).stdout
    assert found == f"spiffe://{SHOP}/ns/default/sa/web\n"


def test_who_is_not_federated_any_more_is_known_no_more(two: Two) -> None:
    two.partner.sixfold("delete", "cftd", "shop")
    assert in_pod(two.partner, "db", KNOWN).stdout == f"{PARTNER}\n"
    assert not list((two.partner.paths.state / "federated").iterdir())
    token = in_pod(two.shop, "web", TOKEN).stdout.strip()
    done = in_pod(two.partner, "db", FOREIGN_TOKEN, token, check=False)
    assert "another trust domain" in done.stderr


def test_an_endpoint_that_proves_to_be_somebody_else_is_not_believed(two: Two) -> None:
    """The partner's endpoint has an SVID, and no certificate of the web."""
    two.shop.apply(manifest(federated(PARTNER, PARTNER_AT)))

    def refused() -> bool:
        (one,) = two.shop.json("ca", "federated")["federated"]
        return "CERTIFICATE_VERIFY_FAILED" in one["problem"]

    assert two.shop.eventually(refused)
