"""Two Sixfolds of different trust domains: bundles told to each other, workloads that meet."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sixfold.agent.authority import authorities
from sixfold.model.spiffe import workload_id
from sixfold.trust.authority import issue
from sixfold.trust.keyring import create

from .abroad import (
    DOOR,
    HTTP,
    Side,
    allowed,
    arrived,
    cut,
    from_abroad,
    half,
    knock,
    may_ask,
)
from .abroad import (
    PORT as DATABASE,
)
from .conftest import SIXFOLD, System, running
from .places import OPEN, block, manifest, policy, service
from .test_workload_api import web_certificate

pytestmark = pytest.mark.root

SHOP, PARTNER = "shop.example", "partner.example"
SHOP_AT, PARTNER_AT = "192.0.2.1", "192.0.2.2"
SHOP_GATE, PARTNER_GATE = "192.0.2.64", "192.0.2.80"
WEB, DB = (f"spiffe://{SHOP}/ns/default/sa/web", f"spiffe://{PARTNER}/ns/default/sa/db")
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
    raw = socket.create_connection((sys.argv[3], int(sys.argv[4])), timeout=60)
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
        shop.up(
            *("--mtls", "strict", "--trust-domain", SHOP),
            *("--bundle-endpoint", f"{SHOP_AT}:8443", "--bundle-endpoint-pem", str(pem)),
            manifest=manifest(*half(SHOP, SHOP_GATE, PARTNER, PARTNER_GATE, PARTNER_AT)),
        )
        node_port = [{"port": 8443, "nodePort": PORT}]
        partner.up(
            *("--mtls", "strict", "--trust-domain", PARTNER),
            *("--bundle-endpoint", f"{PARTNER_AT}:8443"),
            manifest=manifest(
                *half(PARTNER, PARTNER_GATE, SHOP, SHOP_GATE, SHOP_AT),
                service("outside", selector={"app": "db"}, type="NodePort", ports=node_port),
                policy(
                    "outside",
                    {"app": "db"},
                    policyTypes=["Ingress"],
                    ingress=[{"from": [block(f"{SHOP_AT}/32")], "ports": [{"port": 8443}]}],
                ),
            ),
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
    said, wrong = server.communicate(timeout=100)
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
    assert client == f"TLSv1.3 spiffe://{PARTNER}/ns/default/sa/db\n"
    assert server == f"TLSv1.3 spiffe://{SHOP}/ns/default/sa/web\n"
    token = in_pod(two.shop, "web", TOKEN).stdout.strip()
    found = in_pod(two.partner, "db", FOREIGN_TOKEN, token).stdout
    assert found == f"spiffe://{SHOP}/ns/default/sa/web\n"


# --- through the two nodes' proxies ---------------------------------------------------------------


@pytest.fixture
def shop(two: Two) -> Side:
    return Side(two.shop)


@pytest.fixture
def partner(two: Two) -> Side:
    return Side(two.partner)


def test_nobody_of_another_trust_domain_is_let_in_unless_a_rule_names_him(
    shop: Side, partner: Side
) -> None:
    def refused() -> None:
        with partner.db.listen(DATABASE), shop.dial("db-there") as client:
            assert cut(client)

    refused()
    partner.told("DROPPED", WEB, DB, "no AuthorizationPolicy names this identity")
    shop.told(f"refused by {DB}: 403")
    assert not partner.explained(WEB, "db")[0]
    everybody = allowed("*", "*/ns/default/sa/web", "cluster.local/ns/default/sa/web")
    partner.apply(everybody)  # of our own, that is
    assert not partner.explained(WEB, "db")[0]
    refused()
    partner.told("DROPPED", WEB, "none of AuthorizationPolicy default/db names this identity")


def test_workloads_of_two_trust_domains_talk_under_their_identities_and_rules_name_them(
    shop: Side, partner: Side
) -> None:
    partner.apply(allowed(f"{SHOP}/ns/default/sa/web"))
    shop.apply(allowed(f"{PARTNER}/*"))
    secret = b"nobody reads this on the wire"
    with shop.host.make_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        shop.host.inside(lambda: wire.bind(("wire", 0)))
        for here, there in ((shop, partner), (partner, shop)):
            with (
                there.db.listen(DATABASE) as listener,
                here.dial("db-there") as client,
                listener.accept()[0] as server,
            ):
                server.sendall(secret)  # which speaks first
                assert client.recv(100) == secret
                client.sendall(secret[::-1])
                assert server.recv(100) == secret[::-1]
        frames = list(arrived(wire))
    assert frames
    assert not any(secret in one or secret[::-1] in one for one in frames)
    partner.told("FORWARDED", WEB, DB, "AuthorizationPolicy default/db rules[0]")
    shop.told("FORWARDED", WEB, DB, '"db-there"', PARTNER_GATE)
    assert partner.explained(WEB, "db")[0]
    may, said = shop.explained("web", "db-there.edge")
    assert may
    assert f"{WEB} → {DB}, as db.{PARTNER} at {PARTNER_GATE}:{DOOR}" in said


ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "api-there", "namespace": "edge"},
    "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "api-there"}],
        "rules": [
            {
                "matches": [{"headers": [{"name": "version", "value": "2"}]}],
                "filters": [
                    {
                        "type": "URLRewrite",
                        "urlRewrite": {
                            "path": {"type": "ReplaceFullPath", "replaceFullPath": "/2"}
                        },
                    }
                ],
                "backendRefs": [{"name": "api-there", "port": 80}],
            },
        ],
    },
}


def test_requests_of_another_trust_domain_are_judged_one_by_one(shop: Side, partner: Side) -> None:
    url, public = "http://api-there.edge", {"methods": ["GET"], "paths": ["/items*", "/wait*"]}
    assert shop.ask(f"{url}/items/1")[0] == "403"
    partner.told("DROPPED", WEB, DB, "GET api-there.edge/items/1 403", "default/db")
    partner.apply(may_ask(f"{SHOP}/ns/default/sa/web", **public))
    assert partner.system.eventually(lambda: shop.ask(f"{url}/items/1")[0] == "200")
    code, said = shop.ask(f"{url}/items/2?x=1")
    assert (code, said["path"]) == ("200", "/items/2?x=1")
    assert not [name for name in said["headers"] if name.startswith("x-sixfold")]
    assert WEB in said["headers"]["x-forwarded-client-cert"]
    partner.told(
        *("FORWARDED", WEB, DB, "GET api-there.edge/items/2?x=1 200"),
        "AuthorizationPolicy default/api rules[0]",
    )
    shop.told("FORWARDED", WEB, DB, "GET api-there.edge/items/2?x=1 200", '"api-there"')
    assert shop.ask(f"{url}/items/3", "-X", "POST")[0] == "403"
    assert shop.ask(f"{url}/keys/3")[0] == "403"
    partner.told("DROPPED", WEB, DB, "POST api-there.edge/items/3 403", "default/api")
    partner.told("DROPPED", WEB, DB, "GET api-there.edge/keys/3 403", "default/api")
    asked = {"method": "GET", "path": "/items/1"}
    assert partner.explained(WEB, "api", 80, asked=asked)[0]
    may, why = partner.explained(WEB, "api", 80, asked=asked | {"method": "POST"})
    assert not may
    assert "POST /items/1 denied by default-deny (AuthorizationPolicy default/" in why


def test_routes_lead_requests_to_another_trust_domain(shop: Side, partner: Side) -> None:
    shop.apply(ROUTE)
    url = "http://api-there.edge/items/route"
    assert shop.system.eventually(lambda: shop.ask(url)[0] == "404")
    partner.apply(may_ask(f"{SHOP}/ns/default/sa/web", paths=["/2"]))
    assert partner.system.eventually(
        lambda: shop.ask(url, "-H", "version: 2")[1].get("path") == "/2"
    )
    shop.delete(ROUTE)


def test_a_request_that_lasts_is_cut_with_its_rule(shop: Side, partner: Side) -> None:
    web = f"{SHOP}/ns/default/sa/web"
    partner.apply(may_ask(web, paths=["/wait*", "/asked"]))
    url = "http://api-there.edge"
    assert partner.system.eventually(lambda: shop.ask(f"{url}/asked")[0] == "200")
    partner.from_now_on()
    with ThreadPoolExecutor(1) as pool:
        lasting = pool.submit(shop.ask, f"{url}/wait")
        assert shop.system.eventually(lambda: shop.ask(f"{url}/asked")[1]["held"])
        partner.apply(may_ask(web, paths=["/asked"]))
        assert lasting.result()[0] in ("000", "502", "503")
    partner.told("DROPPED", WEB, DB, "cut", "/wait")


def test_who_knocks_at_the_gateway_is_who_he_proves_to_be(
    shop: Side, partner: Side, tmp_path: Path
) -> None:
    """From the other host itself, which network policy lets as far as the Gateway."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    web, other = (workload_id(SHOP, "default", name) for name in ("web", "other"))
    third = workload_id("third.example", "default", "web")
    signer = authorities(shop.system.paths.state, SHOP).keyring.authority
    good = issue(signer, web, now, hour)
    db, name = f"db.{PARTNER}", f"db.{PARTNER}:1"
    knocks = [
        (issue(create(SHOP, now), web, now, hour), db, name, "closed", "local issuer certificate"),
        (issue(create(third[0], now), third, now, hour), db, name, "closed", "no trust bundle"),
        (issue(signer, web, now - 2 * hour, hour), db, name, "closed", "certificate has expired"),
        (None, db, name, "closed", "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        (issue(signer, other, now, hour), db, name, "refused", f"{other}"),
        (good, db, f"{partner.db.ipv4}:{DATABASE}", "refused", "DROPPED"),
        (good, f"vault.{PARTNER}", name, "closed", f"vault.{PARTNER}: no name of ours"),
        (good, db, name, "200", "AuthorizationPolicy default/db rules[0]"),
    ]
    with partner.db.listen(DATABASE):
        for svid, host, authority, outcome, _ in knocks:
            path = tmp_path / "svid.pem"
            if svid is not None:
                path.write_bytes(svid.chain_pem + svid.key_pem)
            shown = path if svid is not None else None
            assert knock(shop.host, PARTNER_GATE, shown, host, authority) == outcome
    for *_, words in knocks:
        partner.told(words)


def test_who_answers_under_another_identity_than_was_meant_gets_nothing(
    shop: Side, partner: Side
) -> None:
    at = f"{PARTNER_GATE}:{DOOR}"
    other = f"spiffe://{PARTNER}/ns/default/sa/other"
    shop.apply(*from_abroad("wrong", f"db.{PARTNER}", at, other))
    with partner.db.listen(DATABASE) as listener:
        with shop.dial("wrong") as client:
            assert cut(client)
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()
    shop.told("ERROR", '"wrong"', "CERTIFICATE_VERIFY_FAILED")


@contextlib.contextmanager
def opened(here: Side, there: Side) -> Iterator[socket.socket]:
    """A connection that is to be cut."""
    there.from_now_on()
    with (
        there.db.listen(DATABASE) as listener,
        here.dial("db-there") as client,
        listener.accept()[0] as server,
    ):
        client.sendall(b"here")
        assert server.recv(4) == b"here"
        there.told("FORWARDED", "mtls", "AuthorizationPolicy")  # so the agent knows who it is
        yield client
        assert cut(client)
        assert cut(server)


def test_a_rule_that_goes_takes_the_connections_of_whom_it_named(shop: Side, partner: Side) -> None:
    rule = allowed(f"{SHOP}/ns/default/sa/web")
    with opened(shop, partner):
        partner.delete(rule)
    partner.told("DROPPED", WEB, "cut: denied by default-deny")
    partner.apply(rule)
    with opened(shop, partner):  # here it is the kernel that ends it
        shop.apply(policy("web", {"app": "web"}, policyTypes=["Egress"], egress=[]))
    shop.told("DROPPED", "egress default-deny (default/web)")
    shop.apply(policy("web", {"app": "web"}, **OPEN))


def test_posture_counts_who_talked_with_other_trust_domains(shop: Side, partner: Side) -> None:
    said = json.loads(shop.system.sixfold("posture", "-o", "json", check=False).stdout)
    (there,) = (one for one in said["pairs"] if (one["to"], one["port"]) == (DB, "80/TCP"))
    assert (there["name"], there["exceptions"]) == ("default/Pod/web", {})
    told = partner.system.sixfold("posture", "-o", "markdown", check=False).stdout
    assert f"| {WEB} → default/Pod/db {HTTP}/TCP | {' | '.join(['yes'] * 5)} |" in told


def test_a_root_that_is_revoked_takes_what_it_vouched_for_with_it(
    shop: Side, partner: Side
) -> None:
    with opened(shop, partner):
        for verb in ("prepare", "activate", "revoke"):
            shop.system.sixfold("ca", verb)
        again = f"https://{SHOP_AT}:8443/bundle?again"
        partner.apply(federated(SHOP, SHOP_AT, bundleEndpointURL=again))
    partner.told("DROPPED", WEB, f"cut: a root of {SHOP} is trusted no more")


def test_who_is_not_federated_any_more_is_known_no_more(
    two: Two, shop: Side, partner: Side
) -> None:
    with opened(shop, partner):
        partner.delete(federated(SHOP, SHOP_AT))
    partner.told("DROPPED", WEB, f"cut: {SHOP} is federated no more")
    with shop.dial("db-there") as client:
        assert cut(client)
    shop.told("ERROR", "the other gateway was not reached, or it closed")
    assert in_pod(two.partner, "db", KNOWN).stdout == f"{PARTNER}\n"
    assert not list((two.partner.paths.state / "federated").iterdir())
    token = in_pod(two.shop, "web", TOKEN).stdout.strip()
    done = in_pod(two.partner, "db", FOREIGN_TOKEN, token, check=False)
    assert "another trust domain" in done.stderr


def test_what_leads_to_a_trust_domain_is_closed_with_its_federation(
    two: Two, shop: Side, partner: Side
) -> None:
    """Here the client's side ends it: the other one still would let it in."""
    partner.apply(federated(SHOP, SHOP_AT))
    assert two.partner.eventually(lambda: heard(two.partner))
    with opened(shop, partner):
        shop.delete(federated(PARTNER, PARTNER_AT))
    shop.told("DROPPED", WEB, f"cut: {PARTNER} is not federated")
    with shop.dial("db-there") as client:
        assert cut(client)
    shop.told("ERROR", f"{PARTNER} is not federated: no Cluster")
    assert not shop.explained("web", "db-there.edge")[0]


def test_an_endpoint_that_proves_to_be_somebody_else_is_not_believed(two: Two) -> None:
    """The partner's endpoint has an SVID, and no certificate of the web."""
    two.shop.apply(manifest(federated(PARTNER, PARTNER_AT)))

    def refused() -> bool:
        (one,) = two.shop.json("ca", "federated")["federated"]
        return "CERTIFICATE_VERIFY_FAILED" in one["problem"]

    assert two.shop.eventually(refused)
