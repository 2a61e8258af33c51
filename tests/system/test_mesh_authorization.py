"""AuthorizationPolicies and tokens on real traffic: HTTP, gRPC, opaque TCP."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from sixfold.host import netns

from .conftest import System
from .places import Place, labelled, manifest, place_of, pod, policy
from .test_mesh_requests import Web, allowed, answered, behind, web

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
NODE_MODULES = HERE.parents[1] / ".venv" / "npm" / "node_modules"
ID = "spiffe://cluster.local/ns/default/sa"
CLIENT = "cluster.local/ns/default/sa/client"
ISSUER_PORT = 18080
ISSUER = f"http://127.0.0.1:{ISSUER_PORT}"
CLAIMS = {"realm": {"roles": ["admin", "dev"]}, "tier": "gold"}

# Talks gRPC over one connection: "TEAM WORD" is said in the stream of a team, "call METHOD" calls;
# a line of output is an answer.
CHAT = """
import queue, sys, threading, grpc
channel = grpc.insecure_channel(f"{sys.argv[1]}:7777")
streams = {}
def answered(name, answers):
    try:
        for answer in answers:
            print(name, answer.decode(), flush=True)
    except grpc.RpcError as error:
        print(name, error.code().name, flush=True)
def stream(name):
    said = queue.SimpleQueue()
    answers = channel.stream_stream("/Echo/Chat")(iter(said.get, None), metadata=[("x-team", name)])
    threading.Thread(target=answered, args=(name, answers), daemon=True).start()
    return said
for name, word in map(str.split, sys.stdin):
    if name == "call":
        method = channel.unary_stream(f"/Echo/{word}")
        answered("call", method(b"x", timeout=20, metadata=[("x-team", "b")]))
    else:
        if name not in streams:
            streams[name] = stream(name)
        streams[name].put(word.encode())
"""


def authorization(*rules: dict[str, Any], name: str = "web", **spec: Any) -> dict[str, Any]:
    annotations = spec.pop("annotations", {})
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"tier": "web"}},
            **({"rules": list(rules)} if rules else {}),
            **spec,
        },
    }


def operation(**fields: list[str]) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def tokens(**rule: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"tier": "web"}},
            "jwtRules": [{"issuer": ISSUER, **rule}],
        },
    }


@pytest.fixture(scope="module")
def mesh(module_system: System) -> Web:
    echo = pod(
        "echo",
        labels={"tier": "web"},
        serviceAccountName="echo",
        container={
            "command": [sys.executable, str(HERE / "mesh_server.py")],
            "ports": [
                {"name": "grpc", "containerPort": 7777},
                {"name": "tcp", "containerPort": 4444},
            ],
            "readinessProbe": {"tcpSocket": {"port": 7777}, "periodSeconds": 1},
        },
    )
    pods = [web("one"), echo]
    pods += [pod(name, serviceAccountName=name) for name in ("client", "stranger")]
    open_ = policy("open", {}, policyTypes=["Ingress", "Egress"], egress=[{}], ingress=[{}])
    module_system.up(
        "--mtls", "strict", manifest=manifest(*pods, behind("one"), behind("echo"), open_)
    )
    found = Web(
        module_system, *(place_of(module_system, f"default/{n}") for n in ("client", "stranger"))
    )
    for item in module_system.json("get", "svc")["items"]:
        found.addresses[item["metadata"]["name"]] = item["spec"]["clusterIP"]
    found.addresses["echo"] = place_of(module_system, "default/echo").ipv4
    return found


@pytest.fixture(autouse=True)
def _as_it_was(mesh: Web) -> Iterator[None]:
    yield
    kinds = ("AuthorizationPolicy", "RequestAuthentication")
    mesh.delete(*((kind, name) for kind in kinds for name in ("web", "not")))


def explained(mesh: Web, *arguments: str) -> tuple[int, str]:
    done = mesh.system.sixfold("explain", "client", "one:80", *arguments, check=False)
    return done.returncode, done.stdout


def test_an_authorization_policy_narrows_what_requests_pass(mesh: Web):
    wanted = {**source(principals=[CLIENT]), **operation(methods=["GET"], paths=["/items*"])}
    mesh.apply(
        authorization(wanted),
        authorization(operation(paths=["/items/secret"]), name="not", action="DENY"),
    )
    assert mesh.ask("one", "/items/7")[0] == 200
    flow = mesh.flow("/items/7", "200")
    assert flow["sixfold"]["ingress_rule"]["text"].endswith("default/open ingress[0]")
    default = "default-deny (AuthorizationPolicy default/web)"
    with mesh.connect("one", place=mesh.stranger) as connection:
        assert answered(connection, "/items/7")[0] == 403
    for path, method, rule in (
        ("/items/7", "POST", default),
        ("/other", "GET", default),
        ("/items/secret", "GET", "AuthorizationPolicy default/not rules[0]"),
    ):
        status, body = mesh.ask("one", path, method)
        assert (status, body) == (403, b"RBAC: access denied")
        flow = mesh.flow("DROPPED", f'{method} {mesh.addresses["one"]}{path} 403"')
        assert flow["sixfold"]["ingress_rule"]["text"] == rule
        assert flow["sixfold"]["source_id"] == f"{ID}/client"
        assert flow["sixfold"]["destination_id"] == f"{ID}/one"
        code, text = explained(mesh, "--path", path, "--method", method)
        assert code == 1
        assert f"denied by {rule} (403)" in text


def said(sock: socket.socket) -> bytes:
    """What a connection that is taken echoes; b"": it was closed."""
    try:
        sock.sendall(b"x")
        return sock.recv(1)
    except OSError:
        return b""


def echoed(mesh: Web, place: Place) -> bytes:
    sock = place.inside(lambda: socket.create_connection((mesh.addresses["echo"], 4444), 10))
    with sock:
        return said(sock)


@pytest.mark.parametrize(
    ("rule", "action", "client", "stranger"),
    [
        pytest.param(source(principals=[CLIENT]), "ALLOW", b"x", b"", id="allow"),
        pytest.param(source(principals=[CLIENT]), "DENY", b"", b"x", id="deny"),
        pytest.param(source(principals=["*/sa/client"]), "DENY", b"", b"x", id="end"),
        pytest.param(operation(methods=["GET"]), "ALLOW", b"", b"", id="http, allow"),
        pytest.param(
            {**source(principals=[CLIENT]), **operation(paths=["/x"])}, "DENY", b"", b"x", id="http"
        ),
        pytest.param(operation(ports=["7777"]), "DENY", b"x", b"x", id="another port"),
    ],
)
def test_of_opaque_connections_it_says_what_can_be_known(
    mesh: Web, rule: dict[str, Any], action: str, client: bytes, stranger: bytes
):
    mesh.apply(authorization(rule, action=action))
    assert (echoed(mesh, mesh.client), echoed(mesh, mesh.stranger)) == (client, stranger)


def test_methods_of_grpc_are_paths_and_a_stream_that_is_denied_later_is_cut_alone(mesh: Web):
    def teams(*names: str, path: str = "/Echo/*") -> dict[str, Any]:
        when = [{"key": "request.headers[x-team]", "values": [*names]}]
        return authorization({**operation(ports=["7777"], paths=[path]), "when": when})

    mesh.apply(teams("a", "b"))
    argv = ("nsenter", f"--net={mesh.client.path}", sys.executable, "-c", CHAT)
    with subprocess.Popen(
        [*argv, mesh.addresses["echo"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as chat:
        told, heard = chat.stdin, chat.stdout
        assert told is not None
        assert heard is not None

        def tell(text: str) -> str:
            told.write(f"{text}\n")
            told.flush()
            return heard.readline().strip()

        assert (tell("a one"), tell("b one")) == ("a one", "b one")
        mesh.apply(teams("b"))
        assert heard.readline().split()[0] == "a"  # and what gRPC makes of it
        assert tell("b two") == "b two"
        flow = mesh.flow("/Echo/Chat", '"connection": "cut"')
        assert flow["verdict"] == "DROPPED"
        assert flow["sixfold"]["ingress_rule"]["text"] == (
            "default-deny (AuthorizationPolicy default/web)"
        )
        assert flow["sixfold"]["source_id"] == f"{ID}/client"
        mesh.apply(teams("b", path="/Echo/Unary"))
        assert heard.readline().split()[0] == "b"
        assert (tell("call Unary"), tell("call Other")) == ("call x", "call PERMISSION_DENIED")
        told.close()
    assert mesh.flow("/Echo/Other")["verdict"] == "DROPPED"


def test_a_socket_that_is_denied_later_is_closed_by_name_of_the_rule(mesh: Web):
    """Whether a rule about requests denies it, or one about connections."""
    ends = mesh.addresses["echo"], 8080
    asked = (
        "GET /ws HTTP/1.1\r\nHost: echo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGVzdA==\r\n\r\n"
    )
    mine = authorization(operation(ports=["8080"], paths=["/x"]), action="DENY")
    both = {"policyTypes": ["Ingress", "Egress"], "egress": [{}]}
    others = policy("open", {}, **both, ingress=[{"from": [labelled(app="x")]}])
    for denying, rule in (
        (authorization(operation(ports=["8080"], paths=["/ws"]), action="DENY"), "web rules[0]"),
        (others, "default-deny (default/open)"),
    ):
        mesh.apply(mine)
        with mesh.client.inside(lambda: socket.create_connection(ends, 10)) as sock:
            sock.sendall(asked.encode())
            assert b"101 Switching" in sock.recv(1000)
            mesh.apply(denying)
            assert sock.recv(100) == b""
        flow = mesh.flow("/ws 101", '"connection": "cut"', rule)
        assert flow["verdict"] == "DROPPED"
    mesh.apply(policy("open", {}, **both, ingress=[{}]))


def test_a_policy_that_arrives_cuts_what_it_denies_and_what_has_to_be_looked_into(mesh: Web):
    ends = mesh.addresses["echo"]
    rules = (
        {**source(principals=[CLIENT]), **operation(ports=["4444"])},
        operation(ports=["7777"], paths=["/x"]),
    )
    with ExitStack() as stack:
        tcp, grpc, strangers, strangers_grpc = (
            stack.enter_context(
                place.inside(lambda port=port: socket.create_connection((ends, port), 10))
            )
            for place in (mesh.client, mesh.stranger)
            for port in (4444, 7777)
        )
        assert said(tcp) == said(strangers) == b"x"
        mesh.apply(authorization(*rules, action="DENY"))
        assert (said(tcp), said(strangers)) == (b"", b"x")
        for one in (grpc, strangers_grpc):  # was opaque until now
            with suppress(ConnectionError):
                while one.recv(100):
                    pass
    assert echoed(mesh, mesh.client) == b""


@pytest.fixture(scope="module")
def issuer(mesh: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """npm's oidc-provider, on the loopback of the host."""
    if not NODE_MODULES.exists():
        pytest.skip("needs npm's oidc-provider: scripts/setup tests")
    script = NODE_MODULES.parent / "issuer.mjs"
    script.write_text((HERE / "issuer.mjs").read_text())
    argv = ["node", str(script), str(ISSUER_PORT), json.dumps(CLAIMS)]
    path = tmp_path_factory.mktemp("issuer") / "log"
    argv = ["nsenter", f"--net={mesh.system.host}", *argv]
    with path.open("w") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            mesh.system.eventually(lambda: "listening" in path.read_text(), "the issuer")
            yield
        finally:
            process.kill()


def token(mesh: Web, audience: str = "urn:shop") -> str:
    """As a client of the issuer gets one."""
    request = urllib.request.Request(
        f"{ISSUER}/token",
        f"grant_type=client_credentials&resource={audience}&scope=read%20write".encode(),
        {"Authorization": "Basic " + base64.b64encode(b"front:front-secret").decode()},
    )

    def fetch() -> str:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.loads(answer.read())["access_token"])

    return netns.run_inside(mesh.system.host, fetch)


def bearing(mesh: Web, text: str | None, **headers: str) -> Any:
    with mesh.connect("one") as connection:
        given = {} if text is None else {"Authorization": f"Bearer {text}"}
        connection.request("GET", "/", headers=given | headers)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body.startswith(b"{") else body


@pytest.mark.usefixtures("issuer")
def test_a_token_of_a_real_issuer_is_verified_and_its_claims_count(mesh: Web):
    good = token(mesh)
    claim = {"header": "tier", "claim": "tier"}
    mesh.apply(tokens(audiences=["urn:shop"], outputClaimToHeaders=[claim]))
    status, said = bearing(mesh, None, tier="forged")
    assert status == 200
    assert "tier" not in said["headers"]
    status, said = bearing(mesh, good, tier="forged")
    assert (status, said["headers"]["tier"]) == (200, "gold")
    assert "authorization" not in said["headers"]
    head, payload, signature = good.split(".")
    forged = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**forged, "sub": "root"}).encode()).decode()
    for bad in ("x", f"{head}.{forged.rstrip('=')}.{signature}", token(mesh, "urn:other")):
        assert bearing(mesh, bad)[0] in (401, 403)
    flow = mesh.flow("DROPPED", "token: ")
    assert flow["sixfold"]["ingress_rule"]["text"] == (
        "default-deny (RequestAuthentication default/web)"
    )
    mesh.apply(
        tokens(audiences=["urn:shop"], forwardOriginalToken=True),
        authorization(source(requestPrincipals=[f"{ISSUER}/front"])),
    )
    assert bearing(mesh, None)[0] == 403
    status, said = bearing(mesh, good)
    assert (status, said["headers"]["authorization"]) == (200, f"Bearer {good}")
    for key, value, wanted in (
        ("request.auth.claims[realm][roles]", "dev", 200),
        ("request.auth.claims[realm][roles]", "root", 403),
        ("request.auth.claims[tier]", "gold", 200),
        ("request.auth.claims[scope]", "write", 200),
        ("request.auth.audiences", "urn:shop", 200),
    ):
        mesh.apply(authorization({"when": [{"key": key, "values": [value]}]}))
        assert bearing(mesh, good)[0] == wanted, key
        code, text = explained(mesh, "--path", "/", "--header", f"Authorization: Bearer {good}")
        assert code == (0 if wanted == 200 else 1), text


def test_keys_that_cannot_be_fetched_make_no_token_good(mesh: Web):
    mesh.apply(tokens(jwksUri="http://127.0.0.1:1/keys"))
    payload = base64.urlsafe_b64encode(json.dumps({"iss": ISSUER, "sub": "a"}).encode()).decode()
    head = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"a"}').decode()
    assert bearing(mesh, f"{head}.{payload.rstrip('=')}.AAAA")[0] == 401
    told = mesh.system.sixfold("status").stdout
    assert (
        "keys of http://127.0.0.1:1/keys: [Errno 111] Connection refused; no token is good" in told
    )


AUDIT = {"sixfold.dev/enforcement": "audit"}


def test_what_is_in_audit_passes_and_is_told_by_name(mesh: Web):
    def asks(path: str, rule: str) -> None:
        assert mesh.ask("one", path)[0] == 200
        flow = mesh.flow(f"{path} 200", rule)
        assert flow["verdict"] == "AUDIT"
        code, text = explained(mesh, "--path", path)
        assert (code, "AUDIT" in text) == (0, True)

    deny = authorization(operation(paths=["/a"]), name="not", action="DENY", annotations=AUDIT)
    mesh.apply(deny, authorization(operation(paths=["/a", "/b"]), annotations=AUDIT))
    asks("/a", "AuthorizationPolicy default/not rules[0]")
    asks("/c", "default-deny (AuthorizationPolicy default/web)")
    mesh.delete(("AuthorizationPolicy", "web"), ("AuthorizationPolicy", "not"))
    mesh.apply(authorization(operation(paths=["/d"]), action="AUDIT"))
    assert mesh.ask("one", "/d")[0] == 200
    assert mesh.flow("/d 200", "told by AuthorizationPolicy default/web rules[0]")
    mesh.delete(("AuthorizationPolicy", "web"), ("NetworkPolicy", "open"))
    out = policy("out", {}, policyTypes=["Egress"], egress=[{}])
    rule = allowed({"path": "/e"})
    rule["metadata"]["annotations"] = AUDIT
    mesh.apply(out, rule)
    asks("/f", "default-deny (CiliumNetworkPolicy default/web)")
    del rule["metadata"]["annotations"]
    mesh.apply(rule)
    assert mesh.ask("one", "/f")[0] == 403
    here = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    here["metadata"]["annotations"] = AUDIT  # type: ignore[index]
    mesh.apply(here)
    asks("/g", "default-deny (CiliumNetworkPolicy default/web)")
    assert mesh.ask("one", "/e")[0] == 200
