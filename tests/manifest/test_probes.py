from __future__ import annotations

import pytest


def probed(make, probe, field="readinessProbe", **container):
    ports = [{"containerPort": 80, "name": "http"}]
    return make.pod({"containers": [make.container(ports=ports, **{field: probe}, **container)]})


@pytest.mark.parametrize(
    "probe",
    [
        pytest.param({"exec": {"command": ["true"]}}, id="exec"),
        pytest.param({"httpGet": {"port": "http", "path": "/healthz"}}, id="http"),
        pytest.param({"tcpSocket": {"port": 80}, "successThreshold": 3}, id="tcp"),
        pytest.param({"grpc": {"port": 80, "service": "a"}}, id="grpc"),
    ],
)
def test_a_probe_with_one_action_is_taken(said, make, probe):
    assert said(probed(make, probe)) == []


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        pytest.param({}, ": no action; give one of exec, httpGet, tcpSocket, grpc", id="none"),
        pytest.param(
            {"tcpSocket": {"port": 1}, "grpc": {"port": 1}},
            ": 2 actions (tcpSocket, grpc); give one of exec, httpGet, tcpSocket, grpc",
            id="two",
        ),
        pytest.param(
            {"exec": {"command": []}}, ".exec.command: is empty; give a command", id="exec"
        ),
        pytest.param(
            {"httpGet": {"port": "web"}},
            '.httpGet.port: "web" is no port of this container; give http, or a number',
            id="port name",
        ),
        pytest.param(
            {"tcpSocket": {"port": 0}}, ".tcpSocket.port: 0 is not a port; give 1 to 65535", id="0"
        ),
        pytest.param(
            {"httpGet": {"port": 80, "path": "x"}},
            ".httpGet.path: \"x\" does not start with '/'; add it",
            id="path",
        ),
        pytest.param(
            {"tcpSocket": {"port": 80}, "periodSeconds": 0},
            ".periodSeconds: 0 is out of range; give 1 to 2147483647",
            id="period",
        ),
        pytest.param(
            {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 5},
            ".terminationGracePeriodSeconds: a readiness probe kills nothing; remove it",
            id="grace",
        ),
    ],
)
def test_what_a_probe_cannot_be_is_said(said, make, probe, message):
    assert said(probed(make, probe)) == [f"spec.containers[0].readinessProbe{message}"]


def test_only_readiness_counts_successes(said, make):
    probe = {"tcpSocket": {"port": 80}, "successThreshold": 2}
    assert said(probed(make, probe, "livenessProbe")) == [
        "spec.containers[0].livenessProbe.successThreshold: only a readiness probe counts"
        " successes; give 1"
    ]


def test_an_init_container_has_probes_only_as_a_sidecar(said, make):
    probe = {"tcpSocket": {"port": 80}}
    init = make.container(name="init", startupProbe=probe)
    (line,) = said(make.pod({"initContainers": [init]}))
    assert line.startswith("spec.initContainers[0].startupProbe: an init container has no probes")
    assert said(make.pod({"initContainers": [{**init, "restartPolicy": "Always"}]})) == []
