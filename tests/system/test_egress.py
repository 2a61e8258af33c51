"""What leaves, and what may be asked for: rules about names, on real traffic.

A name server and servers in a namespace behind the uplink; clients are programs in pods.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dns.message
import dns.query
import dns.rcode
import pytest

from .certificates import Authority
from .conftest import System
from .places import FAMILIES, WAIT_S, Place, manifest, places_of, pod, service
from .upstream import Upstream, outside

pytestmark = pytest.mark.root

RESOLVERS = {4: "169.254.20.10", 6: "fd00:5f::10"}
KUBE_DNS = {
    "matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}
}


def cnp(name: str, app: str, *egress: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, "egress": list(egress)},
    }


def asks(*names: dict[str, str]) -> dict[str, Any]:
    """The rule that every guide to Cilium begins with."""
    ports = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": list(names)}}
    return {"toEndpoints": [KUBE_DNS], "toPorts": [ports]}


def out_to(name: str, port: int, **more: Any) -> dict[str, Any]:
    ports = {"ports": [{"port": str(port), "protocol": "TCP"}], **more}
    return {"toFQDNs": [{"matchName": name}], "toPorts": [ports]}


def entry(name: str, host: str, **port: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "hosts": [host],
            "location": "MESH_EXTERNAL",
            "resolution": "DNS",
            "ports": [{"name": "it", **port}],
        },
    }


def tls(name: str, host: str, mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "host": host,
            "trafficPolicy": {"tls": {"mode": mode, "credentialName": "outside"}},
        },
    }


OPEN = out_to("open.example.org", 443)
CLIENT = cnp(
    "client",
    "client",
    asks({"matchPattern": "*"}),
    out_to("tls.example.org", 443, serverNames=["tls.example.org", "*.tls.example.org"]),
    OPEN,
    out_to("named.example.org", 443),
    out_to("plain.example.org", 80),
    out_to("mutual.example.org", 80),
    out_to("impostor.example.org", 80),
    *(out_to("bank.example.org", port) for port in (80, 443, 8443)),
)
HOSTS = ("plain", "mutual", "impostor")
BANK, VAULTS = "203.0.113.10", ("198.51.100.201", "198.51.100.202")
BANKED = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": {
        "name": "bank",
        "namespace": "default",
        "annotations": {"sixfold.dev/lb-algorithm": "round-robin"},
    },
    "spec": {
        "hosts": ["bank.example.org"],
        "addresses": [BANK],
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC",
        "ports": [
            {"name": "plain", "number": 80, "protocol": "HTTP", "targetPort": 8443},
            {"name": "tls", "number": 443, "protocol": "TLS"},
            {"name": "raw", "number": 7000, "protocol": "TCP"},
        ],
        "endpoints": [{"address": one, "ports": {"raw": 8443}} for one in VAULTS],
    },
}
MANIFEST = manifest(
    pod("client"),
    CLIENT,
    pod("limited"),
    pod("free"),
    pod("web"),
    service("web", ports=[{"port": 80, "targetPort": 8080}]),
    service("hidden", ports=[{"port": 80, "targetPort": 8080}], selector={"app": "web"}),
    cnp(
        "limited",
        "limited",
        asks({"matchName": "api.example.org"}, {"matchPattern": "web.default.svc.*.local"}),
        {"toEndpoints": [{"matchLabels": {"app": "web"}}]},
    ),
    cnp("free", "free", {"toEndpoints": [{"matchLabels": {"app": "web"}}]}),
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]},
    },
)


@dataclass(frozen=True)
class Scene:
    system: System
    upstream: Upstream
    world: Place
    limited: Place
    free: Place
    client: Place
    heard: list[str]

    def curl(self, url: str, *options: str, version: int = 4, to: str = "") -> tuple[str, str]:
        """What curl says in the client: the status, and the body. The pod has asked for the name.

        to  another name's server
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        there = ("--resolve", f"{host}:{port}:{self.address(to or host, version)}")
        given = ("-sk", "--max-time", "10", "-w", " %{http_code}", *there, *options, url)
        done = self.system.run_in(self.client.path, "curl", *given)
        body, _, code = done.stdout.rpartition(" ")
        return code, body

    def address(self, name: str, version: int = 4) -> str:
        """Of a server out there, once the client has asked."""
        assert self.ask(self.client, name, version) == "NOERROR"
        return self.upstream.records[name, "A" if version == 4 else "AAAA"][1][0]

    def told(self, word: str, pod: str = "client", **wanted: str) -> dict[str, Any]:
        """The last flow of a pod that has a word."""

        def found() -> list[dict[str, Any]]:
            flows = self.system.flows("--from", pod)
            return [
                flow
                for flow in flows
                if word in json.dumps(flow["sixfold"])
                and all(flow[name] == value for name, value in wanted.items())
            ]

        return self.system.eventually(found, f"no flow with {word}")[-1]

    def ask(self, place: Place, name: str, version: int = 4, *, tcp: bool = False) -> str:
        query = dns.message.make_query(name, "A" if version == 4 else "AAAA")
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        there = RESOLVERS[version]
        with place.make_socket(family, kind) as sock:
            if tcp:
                sock.connect((there, 53))
            sock.setblocking(False)
            ask = dns.query.tcp if tcp else dns.query.udp
            return dns.rcode.to_text(ask(query, there, timeout=WAIT_S, sock=sock).rcode())


class Answer(BaseHTTPRequestHandler):
    """Says what it was asked, and who asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        shown = self.connection.getpeercert() or {}
        names = [value for _, value in shown.get("subjectAltName", ())]
        said = {"path": self.path, "host": self.headers["host"], "client": names}
        said["at"] = self.connection.getsockname()[0]
        body = json.dumps({**said, "headers": sorted(map(str.lower, self.headers))}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def https(
    world: Place, port: int, authority: Authority, directory: Path, heard: list[str], mutual: bool
) -> Iterator[None]:
    """A server of every address out there; of impostor.example.org it has no certificate."""
    known = ("tls", "open", "named", "plain", "mutual", "*.tls", "bank")
    names = [f"{one}.example.org" for one in known]
    made = authority.issue(*names)
    for name, text in {**made, "ca.crt": authority.pem}.items():
        (directory / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    if mutual:
        context.load_verify_locations(directory / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
    context.sni_callback = lambda _sock, name, _context: heard.append(name or "")
    sockets = [world.listen(port, version=version) for version in (4, 6)]
    servers = []
    for sock in sockets:
        server = ThreadingHTTPServer(("", 0), Answer, bind_and_activate=False)
        server.socket.close()
        server.socket = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        servers.append(server)
    threads = [threading.Thread(target=it.serve_forever, args=(0.05,)) for it in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def scene(module_system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    authority, heard = Authority(), list[str]()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "outside", "namespace": "default"},
        "stringData": {**authority.issue("client.shop"), "ca.crt": authority.pem},
    }
    with ExitStack() as stack:
        world, upstream = stack.enter_context(outside(module_system))
        directory = tmp_path_factory.mktemp("pki")
        for port, mutual in ((443, False), (8443, True)):
            stack.enter_context(https(world, port, authority, directory, heard, mutual))
        for name in ("api", "evil", "tls", "open", "named", *HOSTS):
            upstream.new(f"{name}.example.org")
        entries = [
            entry(
                *(name, f"{name}.example.org"),
                number=80,
                protocol="HTTP",
                targetPort=8443 if name == "mutual" else 443,
            )
            for name in HOSTS
        ]
        entries.append(entry("named", "named.example.org", number=443, protocol="TLS"))
        rules = (
            tls(name, f"{name}.example.org", "MUTUAL" if name == "mutual" else "SIMPLE")
            for name in HOSTS
        )
        entries += [BANKED, tls("bank", "bank.example.org", "MUTUAL")]
        module_system.up(
            *("--dns-upstream", "192.0.2.2"),
            manifest="\n---\n".join((MANIFEST, manifest(secret, *entries, *rules))),
        )
        places = places_of(module_system, "limited", "free", "client")
        yield Scene(module_system, upstream, world, *places, heard)


@pytest.mark.parametrize(("version", "tcp"), [(4, False), (6, True)], ids=["udp", "tcp-ipv6"])
def test_a_name_that_no_rule_allows_is_refused_and_no_server_hears_of_it(
    scene: Scene, version: int, tcp: bool
):
    name = f"stolen-{version}.evil.example.org"
    assert scene.ask(scene.limited, "API.example.org", version, tcp=tcp) == "NOERROR"
    assert scene.ask(scene.limited, name, version, tcp=tcp) == "REFUSED"
    assert name not in scene.upstream.asked
    assert scene.ask(scene.free, "evil.example.org", version, tcp=tcp) == "NOERROR"
    flow = scene.told(name, pod="limited", verdict="DROPPED")
    assert flow["sixfold"]["rule"] == "egress default-deny (CiliumNetworkPolicy default/limited)"
    assert flow["sixfold"]["asked"].endswith(": REFUSED")


def test_our_own_names_obey_it_too_and_search_paths_find_what_is_allowed(scene: Scene):
    assert scene.ask(scene.limited, "web.default.svc.cluster.local") == "NOERROR"
    assert scene.ask(scene.limited, "hidden.default.svc.cluster.local") == "REFUSED"
    assert scene.ask(scene.free, "hidden.default.svc.cluster.local") == "NOERROR"
    by_libc = "getent hosts web && getent hosts api.example.org"  # its search path comes before
    scene.system.sixfold("exec", "limited", "--", "sh", "-c", by_libc)
    asked = ("resolve", "hidden", "--as", "default/limited", "-o", "json")
    step = json.loads(scene.system.sixfold(*asked, check=False).stdout)["steps"][-1]
    assert (step["rcode"], step["by"]) == ("REFUSED", "resolver")


@FAMILIES
def test_tls_passes_by_the_name_in_its_handshake_only(scene: Scene, version: int):
    evil, tls, named = f"evil-{version}.example.org", "tls.example.org", "named.example.org"
    scene.upstream.records[evil, "AAAA"] = scene.upstream.records[evil, "A"] = (60, [])
    assert scene.curl(f"https://{tls}/a", version=version)[0] == "200"
    assert scene.curl(f"https://eu.{tls}/b", version=version, to=tls)[0] == "200"
    assert scene.curl(f"https://{named}/c", version=version)[0] == "200"
    before = len(scene.heard)
    assert scene.curl(f"https://{evil}/", version=version, to=tls)[0] == "000"
    assert scene.curl(f"https://{evil}/", version=version, to=named)[0] == "000"  # of an entry
    assert scene.curl(f"http://{tls}:443/", version=version)[0] == "000"  # no TLS
    assert scene.heard[before:] == []
    flow = scene.told(evil, verdict="DROPPED")
    assert flow["sixfold"]["rule"] == "egress default-deny (CiliumNetworkPolicy default/client)"
    assert flow["sixfold"]["sni"] == evil
    assert flow["IP"]["source"] == scene.client.address(version)


def test_requests_to_an_external_service_go_in_tls_that_the_proxy_began(scene: Scene):
    curl = ("exec", "client", "--", "curl", "-s", "http://plain.example.org/items?x=1")
    said = json.loads(scene.system.sixfold(*curl).stdout)  # knows nothing but the name
    assert (said["path"], said["host"]) == ("/items?x=1", "plain.example.org")
    assert said["headers"] == ["accept", "host", "user-agent"]  # nothing of ours
    assert scene.heard[-1] == "plain.example.org"
    code, body = scene.curl("http://mutual.example.org/")
    assert (code, json.loads(body)["client"]) == ("200", ["client.shop"])
    flow = scene.told("plain.example.org/items", verdict="FORWARDED")
    assert flow["sixfold"]["mesh"] == "TLS begun by the proxy, the server verified"


def test_what_an_external_service_is_not_is_not_reached(scene: Scene):
    assert scene.curl("http://impostor.example.org/secret")[0] == "503"  # not who it should be
    assert scene.curl("http://plain.example.org/", "-H", "Host: evil.example.org")[0] == "403"
    assert scene.curl("https://plain.example.org/")[0] == "000"  # the proxy's port, not the pod's
    assert scene.curl("https://open.example.org/")[0] == "200"  # whom nobody looks at
    address = scene.address("plain.example.org")
    assert scene.free.attempt(address, 80) == "timeout"  # it has no rule
    flow = scene.told("impostor.example.org/secret")
    assert "CERTIFICATE_VERIFY_FAILED" in flow["sixfold"]["mesh"]
    assert "by proxy" in scene.system.sixfold("explain", "client", "plain.example.org:80").stdout


def test_an_external_service_with_addresses_is_balanced_over_its_endpoints(scene: Scene):
    def ask(url: str, *options: str) -> dict[str, Any]:
        curl = ("exec", "client", "--", "curl", "-sk", "--max-time", "10", *options, url)
        return json.loads(scene.system.sixfold(*curl).stdout)

    by_name = [ask("https://bank.example.org/a") for _ in VAULTS]
    by_address = ("--resolve", f"bank.example.org:443:{BANK}")
    assert {one["at"] for one in by_name} == set(VAULTS)
    assert {ask("https://bank.example.org/b", *by_address)["at"] for _ in VAULTS} == set(VAULTS)
    begun = [ask("http://bank.example.org/c") for _ in VAULTS]  # the proxy goes on to 8443
    assert {one["at"] for one in begun} == set(VAULTS)
    assert begun[0]["client"] == ["client.shop"]
    assert "bank.example.org" not in scene.upstream.asked
    assert scene.free.attempt(BANK, 443) == "timeout"  # nothing leaves that no rule lets
    assert scene.free.attempt(VAULTS[0], 443) == "timeout"
    assert scene.client.attempt(BANK, 7000) == "open"  # to 8443, which is let
    flow = scene.told("bank.example.org/c", verdict="FORWARDED")
    assert flow["sixfold"]["mesh"] == "TLS begun by the proxy, the server verified"
    dialled = (flow.get("destination_service") for flow in scene.system.flows("--from", "client"))
    assert {"namespace": "default", "name": "bank.example.org"} in dialled
    said = scene.system.sixfold("explain", "client", "bank.example.org:443").stdout
    assert "ServiceEntry default/bank" in said
    assert f"default/ServiceEntry/bank ({VAULTS[0]}):443" in said


def test_a_rule_that_comes_cuts_what_leaves_past_the_proxy(scene: Scene):
    address = scene.address("open.example.org")
    with scene.client.dial(address, 443) as straight:
        narrowed = out_to("open.example.org", 443, serverNames=["other.example.org"])
        egress = [narrowed if one == OPEN else one for one in CLIENT["spec"]["egress"]]
        scene.system.apply(manifest(cnp("client", "client", *egress)))
        with suppress(ConnectionError):
            assert straight.recv(1) == b""
    assert scene.curl("https://open.example.org/")[0] == "000"
    assert scene.told("PROXY_REQUIRED")["verdict"] == "DROPPED"
    scene.system.apply(manifest(CLIENT))
    assert scene.curl("https://open.example.org/")[0] == "200"


def test_a_name_that_a_rule_no_longer_lists_is_cut(scene: Scene):
    there = scene.address("tls.example.org"), 443
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        scene.client.dial(*there) as plain,
        context.wrap_socket(plain, server_hostname="eu.tls.example.org") as passed,
    ):
        narrowed = out_to("tls.example.org", 443, serverNames=["tls.example.org"])
        others = [it for it in CLIENT["spec"]["egress"] if "serverNames" not in str(it)]
        scene.system.apply(manifest(cnp("client", "client", narrowed, *others)))
        with suppress(ConnectionError, ssl.SSLError):
            assert passed.recv(1) == b""
    assert scene.curl("https://eu.tls.example.org/", to="tls.example.org")[0] == "000"
    scene.system.apply(manifest(CLIENT))
