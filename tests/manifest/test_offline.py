from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest

from sixfold.errors import ManifestError
from sixfold.manifest import loads, offline
from sixfold.model.config import Config
from sixfold.model.identity import NamedPort


def world(*objects, config=None):
    text = "---\n".join(msgspec.json.encode(raw).decode() + "\n" for raw in objects)
    return offline(loads(text, offline=True), config)


def test_a_controller_stands_for_its_pods(make):
    (endpoint,) = world(make.deployment({"replicas": 3})).endpoints.values()
    assert (endpoint.key, endpoint.workload) == ("default/web", "Deployment/web")
    assert endpoint.labels == {"app": "web"}
    assert endpoint.ready
    assert (endpoint.ipv4, endpoint.ipv6) == (None, None)


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_every_kind_of_controller_is_a_workload(make, kind):
    assert list(world(make.deployment(kind=kind)).endpoints) == ["default/web"]


def test_a_job_and_a_bare_pod_are_workloads(make):
    assert list(world(make.job(), make.pod()).endpoints) == ["default/once", "default/web"]


def test_two_kinds_with_one_name_are_told_apart_by_kind(make):
    built = world(make.deployment(), make.deployment(kind="DaemonSet"))
    assert list(built.endpoints) == ["default/Deployment/web", "default/DaemonSet/web"]


def test_endpoints_that_policy_cannot_tell_apart_share_an_identity(make):
    built = world(make.deployment(), make.pod(), make.job())
    identities = [endpoint.identity for endpoint in built.endpoints.values()]
    assert identities[0] == identities[1] != identities[2]
    assert all(identity >= 256 for identity in identities)


def test_namespaces_are_those_written_and_those_mentioned(make):
    shop = make.namespace()
    shop["metadata"]["labels"] = {"team": "a", "kubernetes.io/metadata.name": "lie"}
    assert world(shop, make.pod()).namespaces == {
        "shop": {"team": "a", "kubernetes.io/metadata.name": "shop"},
        "default": {"kubernetes.io/metadata.name": "default"},
    }


def test_addresses_come_from_status_only(make):
    status = {"phase": "Running", "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00::7"}]}
    (endpoint,) = world(make.pod(status=status)).endpoints.values()
    assert endpoint.ipv4 == IPv4Address("10.244.0.7")
    assert endpoint.ipv6 == IPv6Address("fd00::7")
    (single,) = world(make.pod(status={"podIP": "10.244.0.8"})).endpoints.values()
    assert single.ipv4 == IPv4Address("10.244.0.8")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_has_no_endpoint(make, phase):
    status = {"phase": phase, "podIP": "10.244.0.7"}
    assert world(make.pod(status=status)).endpoints == {}


def test_a_pod_address_that_is_none_is_an_error(make):
    with pytest.raises(ManifestError, match=r'-:1: status\.podIP: "here" is not an IP address'):
        world(make.pod(status={"podIP": "here"}))


def test_the_replica_set_of_a_deployment_is_not_counted_again(make):
    owned = make.deployment(kind="ReplicaSet")
    owned["metadata"] |= {
        "name": "web-5d",
        "ownerReferences": [{"kind": "Deployment", "name": "web"}],
    }
    assert list(world(make.deployment(), owned).endpoints) == ["default/web"]


def test_ports_of_containers_come_with_the_endpoint(make):
    ports = [{"containerPort": 80, "name": "http"}, {"containerPort": 9000}]
    probe = {"httpGet": {"port": "http"}}
    main = make.container(ports=ports, readinessProbe=probe)
    (endpoint,) = world(make.pod({"containers": [main]})).endpoints.values()
    assert endpoint.subject.named_ports == (NamedPort("http", "TCP", 80),)
    assert endpoint.publish_ports == (NamedPort("", "TCP", 9000), NamedPort("http", "TCP", 80))
    assert endpoint.probe_ports == {80}


def test_services_have_addresses_and_written_ones_stay(make):
    fixed = make.service({"clusterIP": "10.96.0.1"})
    free, dual, headless = (make.service() for _ in range(3))
    for name, raw in (("free", free), ("dual", dual), ("headless", headless)):
        raw["metadata"]["name"] = name
    dual["spec"]["ipFamilyPolicy"] = "PreferDualStack"
    headless["spec"]["clusterIP"] = "None"
    services = world(fixed, free, dual, headless, config=Config()).services
    assert {key: value.spec.cluster_ips for key, value in services.items()} == {
        "default/web": ["10.96.0.1"],
        "default/free": ["10.96.0.2"],
        "default/dual": ["10.96.0.3", "fd00:5f:96::1"],
        "default/headless": ["None"],
    }


def test_policies_are_keyed_by_namespace_and_name(make):
    assert list(world(make.policy()).policies) == ["default/allow"]


def test_kinds_that_nothing_runs_here_are_workloads_too(make):
    template = make.deployment()["spec"]["template"]
    cron = make.job()
    cron |= {"kind": "CronJob", "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {}}}}
    cron["spec"]["jobTemplate"]["spec"]["template"] = template
    old = make.deployment(kind="ReplicationController")
    old["apiVersion"] = "v1"
    old["spec"]["selector"] = {"app": "web"}
    built = world(cron, old)
    assert [one.workload for one in built.endpoints.values()] == [
        "CronJob/once",
        "ReplicationController/web",
    ]
    assert all(one.labels == {"app": "web"} for one in built.endpoints.values())


def test_a_workload_in_the_hosts_network_is_the_node(make):
    agent = make.deployment(kind="DaemonSet")
    agent["spec"]["template"]["spec"]["hostNetwork"] = True
    built = world(agent, make.pod())
    assert list(built.endpoints) == ["default/web"]
    assert built.on_host == {"default/web", "default/DaemonSet/web"}


def test_the_ways_in_from_outside_are_taken_and_not_looked_at(make):
    ports = [{"port": 80, "nodePort": 30080}]
    outside = make.service(
        {"type": "NodePort", "ports": ports, "externalIPs": ["192.0.2.1"]}
        | {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}
    )
    alias = make.service({"type": "ExternalName", "externalName": "db.example.org"})
    alias["metadata"]["name"] = "alias"
    built = world(outside, alias)
    assert list(built.services) == ["default/web", "default/alias"]
    assert built.services["default/alias"].spec.cluster_ips == []


def test_one_name_may_mean_several_ports_of_a_pod(make):
    both = [make.container(name=f"c{n}", ports=[{"containerPort": n, "name": "x"}]) for n in (1, 2)]
    (endpoint,) = world(make.pod({"containers": both})).endpoints.values()
    assert [port.port for port in endpoint.subject.named_ports] == [1, 2]


def test_what_a_cluster_derives_is_not_looked_at(make):
    manager = "endpointslice.kubernetes.io/managed-by"
    derived = make.endpoint_slice(endpoints=[{"addresses": ["1"], "tomorrow": 1}])
    derived["metadata"]["labels"][manager] = "endpointslice-controller.k8s.io"
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}}
    built = world(make.pod(), derived, endpoints)
    assert list(built.endpoints) == ["default/web"]
    assert not built.slices


def test_endpoints_that_somebody_wrote_are_there(make):
    assert list(world(make.endpoint_slice()).slices) == ["default/web-1"]


def owned(make, name, *, kind="ReplicaSet", owner="web-5d", **changes):
    raw = make.pod(**changes)
    reference = {"apiVersion": "apps/v1", "kind": kind, "name": owner, "controller": True}
    raw["metadata"] |= {"name": name, "ownerReferences": [reference]}
    return raw


def test_a_pod_belongs_to_its_controller_whether_that_is_here_or_not(make):
    built = world(owned(make, "web-5d-a"), owned(make, "web-5d-b"))
    assert [one.key for one in built.endpoints.values()] == ["default/web-5d-a", "default/web-5d-b"]
    assert {one.workload for one in built.endpoints.values()} == {"ReplicaSet/web-5d"}
    assert not any(one.is_template for one in built.endpoints.values())


def test_a_pod_of_a_node_or_of_a_namesake_is_its_own(make):
    static = owned(make, "proxy-n1", kind="Node", owner="n1")
    machine = owned(make, "vm", kind="VirtualMachine", owner="vm")
    workloads = [one.workload for one in world(static, machine).endpoints.values()]
    assert workloads == ["Pod/proxy-n1", "Pod/vm"]


def test_a_pod_in_the_hosts_network_goes_by_its_controllers_name_too(make):
    raw = owned(make, "agent-x", kind="DaemonSet", owner="agent")
    raw["spec"]["hostNetwork"] = True
    assert {"default/agent", "default/Pod/agent-x"} <= world(raw).on_host


def test_what_only_a_running_pod_would_need_may_be_missing_or_unknown(make):
    bare = {"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "old"}}
    labels = {"metadata": {"labels": {"app": "old"}, "clusterName": "x"}}
    bare["spec"] = {"rollbackTo": {"revision": 0}, "template": {**labels, "spec": {}}}
    bare["spec"]["template"]["spec"]["containers"] = [{"name": "c", "quantumFlux": 1}]
    empty = make.pod({"containers": None})
    (one, other) = world(bare, empty).endpoints.values()
    assert one.labels == {"app": "old"}
    assert other.subject.named_ports == ()


def test_a_slip_in_what_policies_depend_on_is_still_refused(make):
    with pytest.raises(ManifestError, match="did you mean hostNetwork"):
        world(make.pod({"hostNetwrok": True}))
    with pytest.raises(ManifestError, match="unknown field"):
        world(make.policy({"quantumFlux": 1}))
