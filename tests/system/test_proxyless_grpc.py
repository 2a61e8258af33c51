"""gRPC clients that balance for themselves: routes and backends of the agent, mTLS of their own.

The proxy is not on the way: mTLS of the port is disabled, and what the server sees of its client is
what gRPC's own handshake proved.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from .conftest import System
from .places import labelled, manifest, pod, policy, service

pytestmark = pytest.mark.root

ID = "spiffe://cluster.local/ns/default/sa/"
FETCH = f"""
import os, subprocess, sys, tempfile
own = tempfile.mkdtemp()  # not by pid: every pod counts its own, and /tmp is the host's
fetch = [{sys.executable!r}, "-m", "sixfold.cli", "svid", "fetch", own, "--once"]
subprocess.run(fetch, check=True)
import atexit, shutil
atexit.register(shutil.rmtree, own, ignore_errors=True)
"""
SERVER = (
    FETCH
    + """
import concurrent.futures, grpc, signal
def hello(request, context):
    seen = context.auth_context()["peer_spiffe_id"][0].decode()
    return f"{os.environ['HOSTNAME']} {seen}".encode()
key, chain, roots = (open(f"{own}/{one}.pem", "rb").read() for one in ("key", "svid", "bundle"))
shutil.rmtree(own)  # it will be killed
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
handler = grpc.method_handlers_generic_handler(
    "Greeter", {"Hello": grpc.unary_unary_rpc_method_handler(hello)})
server.add_generic_rpc_handlers((handler,))
server.add_secure_port("[::]:50051", grpc.ssl_server_credentials([(key, chain)], roots, True))
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(1))
server.wait_for_termination()
"""
)
CLIENT = (
    FETCH
    + """
os.environ["GRPC_XDS_BOOTSTRAP"] = f"{own}/grpc.json"
import grpc
own_only = grpc.xds_channel_credentials()
with grpc.secure_channel(f"xds:///{sys.argv[1]}", own_only) as channel:
    for _ in range(int(sys.argv[2])):
        try:
            print(channel.unary_unary("/Greeter/Hello")(b"", timeout=20).decode())
        except grpc.RpcError as error:
            print(error.code().name)
            print(error.details(), file=sys.stderr)
            break
"""
)


BACKENDS = {"one": "back", "two": "back", "three": "other"}  # and their service accounts


def greeter(name: str, account: str) -> dict[str, Any]:
    probe = {"tcpSocket": {"port": 50051}, "periodSeconds": 1}
    served = {"command": [sys.executable, "-c", SERVER], "readinessProbe": probe}
    labels = {"app": "greeter", "who": name}
    return pod(name, labels=labels, container=served, serviceAccountName=account)


@pytest.fixture(scope="module")
def mesh(module_system: System) -> System:
    exempt = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "greeter", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "greeter"}},
            "mtls": {"mode": "STRICT"},
            "portLevelMtls": {"50051": {"mode": "DISABLE"}},
        },
    }
    module_system.up(
        *("--mtls", "strict"),
        manifest=manifest(
            pod("client", serviceAccountName="front"),
            pod("stranger"),
            *(greeter(name, account) for name, account in BACKENDS.items()),
            service("greeter", ports=[{"port": 80, "targetPort": 50051}]),
            policy("greeter", {"app": "greeter"}, ingress=[{"from": [labelled(app="client")]}]),
            policy("anywhere", None, policyTypes=["Egress"], egress=[{}]),
            exempt,
        ),
    )
    return module_system


def call(system: System, who: str, target: str, times: int = 12) -> list[str]:
    program = [sys.executable, "-c", CLIENT, target, str(times)]
    done = system.sixfold("exec", who, "--", *program, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_backend_is_called_and_sees_who_calls(mesh: System) -> None:
    answers = set(call(mesh, "client", "greeter.default.svc.cluster.local", times=60))
    assert answers == {f"{name} {ID}front" for name in BACKENDS}


def test_a_backend_that_goes_is_called_no_more(mesh: System) -> None:
    mesh.sixfold("delete", "pod", "three")
    answers = set(call(mesh, "client", "greeter:80"))
    assert answers
    assert answers <= {f"{name} {ID}front" for name in ("one", "two")}  # as soon as connected


def test_who_may_not_reach_it_is_told_of_no_such_service(mesh: System) -> None:
    assert call(mesh, "stranger", "greeter:80") == ["UNAVAILABLE"]


def test_routes_that_grpc_can_follow_are_followed_and_others_are_not_told(mesh: System) -> None:
    def routed(**more: object) -> dict[str, object]:
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GRPCRoute",
            "metadata": {"name": "greeter", "namespace": "default"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "greeter"}],
                "rules": [
                    {
                        "matches": [{"method": {"service": "Greeter", "method": "Hello"}}],
                        "backendRefs": [{"name": "second", "port": 80}],
                        **more,
                    }
                ],
            },
        }

    second = service("second", ports=[{"port": 80, "targetPort": 50051}], selector={"who": "two"})
    mesh.apply(manifest(second, routed()))
    header = {"name": "x", "value": "y"}
    modified = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}
    found = call(mesh, "client", "greeter:80", 4)
    mesh.apply(manifest(routed(filters=[modified])))
    assert call(mesh, "client", "greeter:80", 1) == ["UNAVAILABLE"]
    assert found == [f"two {ID}front"] * 4
