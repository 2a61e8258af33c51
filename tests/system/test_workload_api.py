"""The SPIFFE Workload API, asked by the stock client from inside pods; and by who may not ask."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import grpc
import pytest
from spiffe._proto import workload_pb2, workload_pb2_grpc

from .conftest import System
from .places import OPEN, manifest, places_of, pod, policy

pytestmark = pytest.mark.root

TRUST_DOMAIN = "shop.example"
WEB = f"spiffe://{TRUST_DOMAIN}/ns/default/sa/web"
DB = f"spiffe://{TRUST_DOMAIN}/ns/default/sa/default"
TTL_S = 30  # half of it has to do for a slow start of two clients
ISSUER = "https://localhost:8443"

X509 = """
import json
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    svid = client.fetch_x509_svid()
    bundles = client.fetch_x509_bundles()
    leaf = svid.leaf
    print(json.dumps({
        "id": str(svid.spiffe_id),
        "serial": f"{leaf.serial_number:x}",
        "trust_domains": sorted(one.trust_domain.name for one in bundles.bundles),
    }))
"""
JWT = """
import json
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    svid = client.fetch_jwt_svid(audience={"db"})
    valid = client.validate_jwt_svid(svid.token, audience="db")
    try:
        client.validate_jwt_svid(svid.token, audience="other")
        refused = ""
    except Exception as error:
        refused = str(error)
    bundles = client.fetch_jwt_bundles()
    (bundle,) = bundles.bundles
    keys = sorted(bundle.jwt_authorities)
    print(json.dumps({"id": str(valid.spiffe_id), "refused": refused, "keys": keys}))
"""
WATCH = """
import time
from datetime import UTC, datetime
from spiffe import X509Source
with X509Source() as source:
    first = source.svid.leaf
    while source.svid.leaf == first:
        time.sleep(0.05)
    print("in time" if datetime.now(UTC) < first.not_valid_after_utc else "late")
    print(source.svid.leaf.not_valid_after_utc > first.not_valid_after_utc)
"""
# One end of a connection with mutual TLS, each with what the Workload API gave it. SPIFFE names
# no hosts: who the other one is, is in its certificate.
TLS = """
import socket, ssl, sys, tempfile
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography import x509
from spiffe import WorkloadApiClient
with WorkloadApiClient() as client:
    svid = client.fetch_x509_svid()
    (bundle,) = client.fetch_x509_bundles().bundles
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
    raw = socket.create_connection((sys.argv[2], 8443), timeout=10)
with context.wrap_socket(raw, server_side=server) as secured:
    if server:
        secured.recv(5)
    else:
        secured.sendall(b"hello")
    peer = x509.load_der_x509_certificate(secured.getpeercert(True))
    names = peer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    print(secured.version(), *names.get_values_for_type(x509.UniformResourceIdentifier))
"""


@pytest.fixture(scope="module")
def system(module_system: System) -> System:
    web = pod("web", serviceAccountName="web")
    module_system.up(
        *("--trust-domain", TRUST_DOMAIN, "--svid-ttl", str(TTL_S)),
        *("--bundle-endpoint", "127.0.0.1:8443", "--jwt-issuer", ISSUER),
        *("--bundle-endpoint-pem", str(web_certificate(module_system))),
        manifest=manifest(web, pod("db"), policy("open", None, **OPEN)),
    )
    return module_system


def web_certificate(system: System, address: str = "127.0.0.1") -> Path:
    """As an authority of the web gives it: for a name and an address, and no SPIFFE ID."""
    path = system.paths.state.parent / "endpoint.pem"
    system.paths.state.parent.mkdir(exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = f"subjectAltName=DNS:localhost,IP:{address}"
    command += ["-nodes", "-subj", "/CN=localhost", "-addext", names]
    done = subprocess.run(
        [*command, "-keyout", path, "-out", f"{path}.crt"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def in_pod(system: System, name: str, program: str, *argv: str) -> str:
    done = system.sixfold("exec", name, "--", sys.executable, "-c", program, *argv)
    return done.stdout


def channel(system: System) -> grpc.Channel:
    return grpc.insecure_channel(f"unix:{system.paths.workload_socket}")


HEADER = [("workload.spiffe.io", "true")]


def refused(call) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code().name, error.value.details()


def test_a_workload_learns_who_it_is_as_any_user(system: System):
    dropped = X509.replace("with Work", "import os; os.setuid(65534)\nwith Work", 1)
    found = json.loads(in_pod(system, "web", dropped))
    assert found["id"] == WEB
    assert found["trust_domains"] == [TRUST_DOMAIN]
    assert json.loads(in_pod(system, "db", X509))["id"] == DB
    listed = {one["pod"]: one for one in system.json("svid", "list")["svids"]}
    assert listed["default/web"]["spiffe_id"] == WEB
    assert listed["default/web"]["serial"] == found["serial"]


def test_a_certificate_is_as_the_specification_wants_it_for_openssl(system: System, tmp_path: Path):
    program = X509 + (
        "    from cryptography.hazmat.primitives.serialization import Encoding\n"
        "    print(*(one.public_bytes(Encoding.PEM).decode() for one in svid.cert_chain))\n"
    )
    leaf, bundle = tmp_path / "leaf.pem", tmp_path / "bundle.pem"
    leaf.write_text(in_pod(system, "web", program).partition("\n")[2].replace("\n ", "\n"))
    bundle.write_text(system.sixfold("svid", "bundle").stdout)
    openssl = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient"]
    files = ["-untrusted", leaf, "-CAfile", bundle, leaf]
    done = subprocess.run([*openssl, *files], capture_output=True, text=True)
    assert done.stdout == f"{leaf}: OK\n", done.stderr


def test_a_token_is_valid_for_its_audience_only(system: System):
    found = json.loads(in_pod(system, "web", JWT))
    assert found["id"] == WEB
    assert "audience" in found["refused"].lower()
    published = json.loads(system.sixfold("svid", "bundle", "--jwks").stdout)["keys"]
    assert found["keys"] == [key["kid"] for key in published]


OIDC = """
import json, ssl, sys, urllib.request
import jwt
issuer, roots, token = sys.argv[1:]
context = ssl.create_default_context(cafile=roots)
with urllib.request.urlopen(issuer + "/.well-known/openid-configuration", context=context) as one:
    told = json.load(one)
assert told["issuer"] == issuer
client = jwt.PyJWKClient(told["jwks_uri"], ssl_context=context)
key = client.get_signing_key_from_jwt(token)
algorithms = told["id_token_signing_alg_values_supported"]
for audience in ("db", "other"):
    try:
        print(jwt.decode(token, key, algorithms, audience=audience, issuer=issuer)["sub"])
    except jwt.InvalidAudienceError as error:
        print(error)
"""


def test_anybody_verifies_a_token_by_openid_discovery_over_https(system: System):
    """PyJWT's own client; a token of before a rotation of the key, and one of after."""
    program = JWT.replace('"id": str(valid.spiffe_id)', '"id": svid.token')
    roots = str(system.paths.state.parent / "endpoint.pem.crt")

    def verified(token: str) -> list[str]:
        argv = (sys.executable, "-c", OIDC, ISSUER, roots, token)
        done = system.on_host(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    before = json.loads(in_pod(system, "web", program))["id"]
    assert verified(before) == [WEB, "Audience doesn't match"]
    system.sixfold("ca", "prepare", "--jwt")
    system.sixfold("ca", "activate", "--jwt")
    program = program.replace("keys = sorted(", "keys = len(")
    after = json.loads(in_pod(system, "web", program))
    assert after["keys"] == 2
    assert verified(before)[0] == verified(after["id"])[0] == WEB
    system.sixfold("ca", "revoke", "--jwt")
    done = system.on_host(sys.executable, "-c", OIDC, ISSUER, roots, before)
    assert "Unable to find a signing key" in done.stderr


def test_a_stream_brings_the_next_certificate_before_the_old_one_ends(system: System):
    assert in_pod(system, "web", WATCH) == "in time\nTrue\n"


def test_two_pods_talk_mutual_tls_and_each_knows_the_other(system: System):
    (db,) = places_of(system, "db")
    command = ["exec", "db", "--", sys.executable, "-c", TLS, "serve"]
    server = subprocess.Popen(
        ["nsenter", f"--net={system.host}", sys.executable, "-m", "sixfold.cli", *command],
        env=system.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    with server.stdout:
        assert server.stdout.readline() == "ready\n"
        assert in_pod(system, "web", TLS, "dial", db.ipv4) == f"TLSv1.3 {DB}\n"
        assert server.stdout.readline() == f"TLSv1.3 {WEB}\n"
    assert server.wait(10) == 0


# A stream that is open while its process becomes another user's.
BECOMES = """
import os, grpc
from spiffe._proto import workload_pb2, workload_pb2_grpc
with grpc.insecure_channel(os.environ["SPIFFE_ENDPOINT_SOCKET"]) as channel:
    api = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
    header = [("workload.spiffe.io", "true")]
    stream = api.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=header)
    print(next(stream).svids[0].spiffe_id)
    os.setuid(65534)
    try:
        while True:
            next(stream)
    except grpc.RpcError as error:
        print(error.code().name)
"""


def spiffe_id(name: str, *selectors: str) -> dict:
    template = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/"
    return {
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": {"name": name},
        "spec": {
            "spiffeIDTemplate": template + "{{ .PodSpec.ServiceAccountName }}",
            "podSelector": {"matchLabels": {"app": "web"}},
            "workloadSelectorTemplates": list(selectors),
        },
    }


def test_an_identity_is_for_the_users_and_programs_that_are_named(system: System):
    python = f"unix:sha256:{sha256(Path(sys.executable).read_bytes()).hexdigest()}"
    other = f"unix:sha256:{sha256(b'another program').hexdigest()}"
    system.apply(manifest(spiffe_id("ours", "unix:uid:0", python), spiffe_id("none", other)))
    assert json.loads(in_pod(system, "web", X509))["id"] == WEB
    assert in_pod(system, "web", BECOMES).splitlines() == [WEB, "PERMISSION_DENIED"]
    dropped = X509.replace("with Work", "import os; os.setuid(65534)\nwith Work", 1)
    refusal = ("exec", "web", "--", sys.executable, "-c")
    assert "no identity issued" in system.sixfold(*refusal, dropped, check=False).stderr
    system.apply(manifest(spiffe_id("ours", "unix:uid:0", other)))
    assert "no identity issued" in system.sixfold(*refusal, X509, check=False).stderr
    assert json.loads(in_pod(system, "db", X509))["id"] == DB, "nothing picks it"
    findings = system.json("audit", "--rule", "Z15", "--fail-on", "never")
    (found,) = [one["message"] for one in findings if "sleep" in one["message"]]
    assert "is none of those that its identity is for" in found
    system.sixfold("delete", "clusterspiffeid", "ours", "none")
    assert json.loads(in_pod(system, "web", X509))["id"] == WEB


def test_a_process_of_no_pod_has_no_identity(system: System):
    with channel(system) as opened:
        api = workload_pb2_grpc.SpiffeWorkloadAPIStub(opened)
        assert refused(
            lambda: next(api.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=HEADER))
        ) == (
            "PERMISSION_DENIED",
            "no identity issued: not a process of a pod, or not one that may have its identity",
        )


def test_the_network_of_a_pod_makes_nobody_its_workload(system: System):
    """Root in the pod's network namespace, not of its control group."""
    (web,) = places_of(system, "web")
    socket = f"unix://{system.paths.workload_socket}"
    done = system.run_in(
        web.path, "env", f"SPIFFE_ENDPOINT_SOCKET={socket}", sys.executable, "-c", X509
    )
    assert done.returncode == 1
    assert "no identity issued" in done.stderr


def test_a_call_without_its_header_is_refused(system: System):
    with channel(system) as opened:
        api = workload_pb2_grpc.SpiffeWorkloadAPIStub(opened)
        request = workload_pb2.JWTSVIDRequest(audience=["db"])
        code, why = refused(lambda: api.FetchJWTSVID(request))
        assert (code, "workload.spiffe.io" in why) == ("INVALID_ARGUMENT", True)


def test_nobody_gets_a_token_of_somebody_else(system: System):
    program = JWT.replace('audience={"db"}', f'audience={{"db"}}, subject=SpiffeId("{DB}")')
    program = program.replace("import json\n", "import json\nfrom spiffe import SpiffeId\n", 1)
    command = ("exec", "web", "--", sys.executable, "-c", program)
    done = system.sixfold(*command, check=False)
    assert done.returncode == 1
    assert f"not yours; you are {WEB}" in done.stderr


def test_the_authority_is_readable_by_root_only_and_outlives_the_agent(system: System):
    path = system.paths.state / "authority.json"
    assert path.stat().st_mode & 0o777 == 0o600
    before = system.sixfold("svid", "bundle").stdout
    subprocess.run(["kill", "-9", str(system.agent_pid())], check=True)
    system.up()
    assert system.sixfold("svid", "bundle").stdout == before
    assert json.loads(in_pod(system, "web", X509))["id"] == WEB
