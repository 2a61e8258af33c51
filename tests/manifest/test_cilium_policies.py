from __future__ import annotations

import pytest


def ingress(make, rule):
    return make.cilium_policy({"ingress": [rule]})


def egress(make, rule, section="egress"):
    return make.cilium_policy({section: [rule]})


def to_port(make, port):
    return egress(make, {"toPorts": [{"ports": [port]}]})


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({}, id="empty"),
        pytest.param({"fromEndpoints": []}, id="nobody"),
        pytest.param({"fromEndpoints": [{"matchLabels": {"k8s:app": "web"}}]}, id="source"),
        pytest.param({"fromEntities": ["cluster", "world"]}, id="entities"),
        pytest.param({"fromCIDR": ["192.0.2.1", "2001:db8::/32"]}, id="cidr"),
        pytest.param({"fromCIDRSet": [{"cidrGroupRef": "partners"}]}, id="group"),
        pytest.param({"icmps": [{"fields": [{"type": 8}, {"type": "EchoReply"}]}]}, id="icmp"),
        pytest.param({"fromEntities": ["all"], "fromEndpoints": []}, id="one kind is empty"),
        pytest.param({"authentication": {"mode": "disabled"}}, id="no authentication"),
    ],
)
def test_rules_of_the_api_are_taken(said, make, rule):
    assert said(ingress(make, rule)) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        pytest.param(
            {"fromEndpoints": [{}], "fromCIDR": ["192.0.2.0/24"]},
            ": has fromEndpoints and fromCIDR; give each a rule of its own",
            id="two kinds",
        ),
        pytest.param(
            {"fromEndpoints": [{"matchLabels": {"reserved:hosts": ""}}]},
            '"hosts" is not reserved; give one of host, world',
            id="reserved",
        ),
        pytest.param(
            {
                "fromEndpoints": [
                    {"matchExpressions": [{"key": "reserved:host", "operator": "DoesNotExist"}]}
                ]
            },
            "matchExpressions[0].key: pods have no reserved labels",
            id="not reserved",
        ),
        pytest.param(
            {"fromEndpoints": [{"matchLabels": {"container:id": "x"}}]},
            'no labels are from "container"',
            id="container",
        ),
        pytest.param(
            {"fromEndpoints": [{"matchLabels": {"k8s:-": "x"}}]}, "not a label key", id="key"
        ),
        pytest.param({"fromEntities": ["clutser"]}, "did you mean cluster?", id="entity"),
        pytest.param({"fromCIDR": ["10.0.0.0/33"]}, "fromCIDR[0]: ", id="too long"),
        pytest.param({"fromCIDRSet": [{}]}, "has nothing; give exactly one of cidr", id="no cidr"),
        pytest.param(
            {"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}]},
            "except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8",
            id="except outside",
        ),
        pytest.param(
            {"icmps": [{"fields": [{"type": "Ping"}]}]}, '"Ping" is no ICMP type of IPv4', id="icmp"
        ),
        pytest.param(
            {"toPorts": [{"ports": [{"port": "1"}]}], "icmps": [{"fields": [{"type": 8}]}]},
            "icmps: not beside toPorts",
            id="icmp and ports",
        ),
        pytest.param({"toPorts": [{}]}, "ports: 0 items; give 1 to 40", id="no ports"),
        pytest.param({"authentication": {"mode": "required"}}, "comes with the mesh", id="auth"),
    ],
)
def test_rules_that_mean_nothing_are_refused(said, make, rule, message):
    (line,) = said(ingress(make, rule))
    assert line.startswith("spec.ingress[0]")
    assert message in line


@pytest.mark.parametrize(
    ("port", "message"),
    [
        pytest.param({}, 'port: is required; add it, "0" is every port', id="none"),
        pytest.param({"port": "65536"}, "port: 65536 is not a port", id="65536"),
        pytest.param({"port": 80}, 'quote it, "80"', id="number"),
        pytest.param({"port": "80", "endPort": 79}, "endPort: 79 is below port 80", id="below"),
        pytest.param({"port": "web", "endPort": 90}, "endPort needs a number", id="name"),
        pytest.param({"port": "80", "protocol": "GRE"}, '"GRE" is not one of', id="protocol"),
    ],
)
def test_ports_that_are_none_are_refused(said, make, port, message):
    (line,) = said(to_port(make, port))
    assert message in line


def test_names_cannot_be_denied(said, make):
    lines = said(egress(make, {"toFQDNs": [{"matchName": "a.b"}]}, "egressDeny"), offline=True)
    assert any("names cannot be denied" in line for line in lines)


@pytest.mark.parametrize("pattern", ["*", "*.example.com", "**.example.com.", "A-*_b.c*", "x"])
def test_patterns_of_names_are_taken(said, make, pattern):
    assert said(egress(make, {"toFQDNs": [{"matchPattern": pattern}]})) == []


@pytest.mark.parametrize("pattern", ["**", "**.", ".", "a..b", "*.exämple.com", "a b", "x" * 256])
def test_what_is_no_pattern_of_names_is_refused(said, make, pattern):
    (line,) = said(egress(make, {"toFQDNs": [{"matchPattern": pattern}]}))
    assert "is no pattern" in line


@pytest.mark.parametrize("name", ["*.example.com", "a..b", ".a", "a/b"])
def test_what_is_no_name_is_refused(said, make, name):
    (line,) = said(egress(make, {"toFQDNs": [{"matchName": name}]}))
    assert "is no name" in line


def asking(make, section="egress", port="53", protocol="ANY", names=({"matchName": "a.b"},), **to):
    ports = {"ports": [{"port": port, "protocol": protocol}], "rules": {"dns": list(names)}}
    rule = {"toPorts": [ports], **to}
    return egress(make, rule, section)


KUBE_DNS = {"k8s:k8s-app": "kube-dns", "k8s:io.kubernetes.pod.namespace": "kube-system"}


@pytest.mark.parametrize(
    "to",
    [
        pytest.param({}, id="anybody"),
        pytest.param({"toEndpoints": [{"matchLabels": KUBE_DNS}]}, id="kube-dns"),
        pytest.param({"toEntities": ["cluster"]}, id="cluster"),
        pytest.param({"toCIDR": ["169.254.20.10/32"]}, id="address"),
    ],
)
def test_rules_about_names_are_taken_for_the_cluster_resolver(said, make, to):
    assert said(asking(make, **to)) == []


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        pytest.param({"port": "5353"}, "ports[0].port", "answers at port 53", id="port"),
        pytest.param({"protocol": "SCTP"}, "ports[0].protocol", "give UDP", id="sctp"),
        pytest.param({"names": ()}, "rules.dns", "is empty", id="empty"),
        pytest.param({"names": ({"matchName": "*.b"},)}, "dns[0].matchName", "no name", id="name"),
        pytest.param(
            {"toEndpoints": [{"matchLabels": {"app": "dns"}}]}, "rules.dns", "kube-dns", id="pods"
        ),
        pytest.param({"toCIDR": ["192.0.2.53/32"]}, "rules.dns", "kube-dns", id="foreign"),
    ],
)
def test_rules_about_names_that_nobody_could_enforce_are_refused(
    said, make, options, where, message
):
    (line,) = said(asking(make, **options))
    assert f"{where}: " in line
    assert message in line


def naming(make, port="443", protocol="TCP", names=("a.example.com",), **to):
    ports = {"ports": [{"port": port, "protocol": protocol}], "serverNames": list(names)}
    return egress(make, {"toPorts": [ports], **(to or {"toFQDNs": [{"matchName": "a.b"}]})})


@pytest.mark.parametrize(
    "to",
    [
        pytest.param({}, id="names"),
        pytest.param({"toCIDR": ["192.0.2.0/24"]}, id="block"),
        pytest.param({"toEntities": ["world"]}, id="world"),
    ],
)
def test_names_in_handshakes_are_taken_for_the_world(said, make, to):
    assert said(naming(make, **to)) == []


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        pytest.param({"toEndpoints": [{}]}, "serverNames", "leave for the world", id="pods"),
        pytest.param({"toEntities": ["world", "host"]}, "serverNames", "the world", id="host"),
        pytest.param({"port": "https"}, "ports[0].port", "give a number", id="name"),
        pytest.param({"port": "0"}, "ports[0].port", "give a number", id="all"),
        pytest.param({"protocol": "UDP"}, "ports[0].protocol", "over TCP", id="udp"),
        pytest.param({"names": ("a b",)}, "serverNames[0]", "is no name", id="pattern"),
    ],
)
def test_names_in_handshakes_that_nobody_could_read_are_refused(
    said, make, options, where, message
):
    (line,) = said(naming(make, **options))
    assert f"{where}: " in line
    assert message in line


def test_a_policy_needs_a_spec(said, make):
    raw = make.cilium_policy()
    raw["specs"] = [raw.pop("spec")]
    assert said(raw) == []
    del raw["specs"]
    assert said(raw) == ["spec: is required; add it, or specs"]


def test_a_clusterwide_policy_is_in_no_namespace(said, make):
    raw = make.cilium_policy(kind="CiliumClusterwideNetworkPolicy")
    raw["metadata"]["namespace"] = "shop"
    (line,) = said(raw)
    assert line.startswith("metadata.namespace: ")


def test_what_is_logged_is_short_and_printable(said, make):
    assert said(make.cilium_policy({"log": {"value": "shop"}})) == []
    (line,) = said(make.cilium_policy({"log": {"value": "x" * 33}}))
    assert line == "spec.log.value: give at most 32 printable characters"


@pytest.mark.parametrize("version", ["v2", "v2alpha1"])
def test_groups_of_both_versions_are_taken(said, make, version):
    assert said(make.cidr_group(version=version)) == []
    (line,) = said(make.cidr_group(["nonsense"], version))
    assert line.startswith("spec.externalCIDRs[0]: ")


CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"


@pytest.mark.parametrize(
    ("kind", "spec", "problem"),
    [
        pytest.param(CLUSTERWIDE, {"endpointSelector": None}, "endpointSelector", id="neither"),
        pytest.param(CLUSTERWIDE, {"nodeSelector": {}}, "nodeSelector: not beside", id="both"),
        pytest.param(
            "CiliumNetworkPolicy",
            {"endpointSelector": None, "nodeSelector": {}},
            "nodeSelector: hosts are in no namespace",
            id="namespaced",
        ),
        pytest.param(
            CLUSTERWIDE,
            {"endpointSelector": None, "nodeSelector": {"matchLabels": {"a b": "c"}}},
            "nodeSelector.matchLabels",
            id="label",
        ),
    ],
)
def test_a_spec_is_for_endpoints_or_for_hosts(said, make, kind, spec, problem):
    (line,) = said(make.cilium_policy(spec, kind=kind))
    assert line.startswith(f"spec.{problem}")


def test_policies_for_hosts_are_taken(said, make):
    node = {"matchLabels": {"kubernetes.io/hostname": "a", "k8s:zone": "b"}}
    spec = {"endpointSelector": None, "nodeSelector": node}
    assert said(make.cilium_policy(spec, kind=CLUSTERWIDE)) == []


def test_reserved_labels_are_taken_in_selectors(said, make):
    peers = [{"matchLabels": {"reserved:host": ""}}, {"matchLabels": {"any:reserved:world": ""}}]
    assert said(ingress(make, {"fromEndpoints": peers})) == []
    lines = [{"key": "reserved:init", "operator": "DoesNotExist"}]
    selector = {"endpointSelector": {"matchExpressions": lines}}
    assert said(make.cilium_policy(selector, kind="CiliumClusterwideNetworkPolicy")) == []
