"""Annotations about health: what is refused, and where."""

from __future__ import annotations

import pytest

from sixfold.errors import ManifestError
from sixfold.manifest import loads
from sixfold.manifest.health import at_port, parse_check, port_of

SERVICE = """
apiVersion: v1
kind: Service
metadata:
  name: ext
  annotations:
    sixfold.dev/lb-{name}: {value}
spec: {{{more}ports: [{{port: 80}}]}}
"""


def refused(name, value, more=""):
    with pytest.raises(ManifestError) as raised:
        loads(SERVICE.format(name=name, value=value, more=more), "ext.yaml")
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("'{httpGet: {}, grpc: {}}'", "2 actions (httpGet, grpc)"),
        ("'{httpGet: {path: h}}'", "httpGet.path: \"h\" does not start with '/'"),
        ("'{}'", "no action; give one of"),
        ("x", "is no Probe; give {httpGet"),
        ("'['", "is no YAML"),
        ("'{httpGet: {port: web}}'", "a backend has no named ports; give the number"),
        ("'{httpGet: {porte: 1}}'", "httpGet.porte: unknown field; did you mean port?"),
        ("'{grpc: {port: 70000}}'", "grpc.port: 70000 is not a port"),
        ("'{tcpSocket: {}, periodSeconds: 0}'", "periodSeconds: 0 is out of range"),
        ("'{tcpSocket: {}, initialDelaySeconds: 1}'", "initialDelaySeconds: is for containers"),
    ],
)
def test_a_check_that_is_none_is_refused_with_its_place(text, said):
    message = refused("health-check", text)
    assert 'ext.yaml:7: metadata.annotations["sixfold.dev/lb-health-check"]: ' in message
    assert said in message


def test_pods_are_asked_by_their_readiness_probe():
    message = refused("health-check", "'{tcpSocket: {}}'", "selector: {app: x}, ")
    assert "pods are asked by their readinessProbe" in message


@pytest.mark.parametrize("value", ["30", "x", "0s", "25h"])
def test_a_slow_start_is_a_duration(value):
    assert "is no duration; give 500ms, 30s" in refused("slow-start", f"'{value}'")


@pytest.mark.parametrize("value", ["101", "-1", "never"])
def test_a_threshold_is_a_share_or_fail(value):
    assert "give 0 to 100 (percent of healthy ones), or fail" in refused(
        "panic-threshold", f"'{value}'"
    )


@pytest.mark.parametrize("name", ["slow-start", "panic-threshold"])
def test_a_headless_service_picks_nobody(name):
    value = {"slow-start": "30s", "panic-threshold": "fail"}[name]
    assert "headless, clients pick" in refused(name, value, "clusterIP: None, ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("health-check", "'{httpGet: {path: /h}, periodSeconds: 2, successThreshold: 3}'"),
        ("health-check", "'tcpSocket:'"),
        ("health-check", '\'{"exec": {"command": ["x"]}}\''),
        ("slow-start", "500ms"),
        ("panic-threshold", "'50'"),
    ],
)
def test_what_is_right_is_taken(name, value):
    loads(SERVICE.format(name=name, value=value, more=""))


def test_a_port_that_is_left_out_is_the_backends_own():
    own, other = parse_check("{tcpSocket: {}}"), parse_check("{httpGet: {port: 81}}")
    assert (port_of(own, 9000), port_of(other, 9000)) == (9000, 81)
    assert at_port(own, 9000).tcp_socket.port == 9000
    assert port_of(parse_check("{exec: {command: [x]}}"), 9000) == 9000
    assert at_port(parse_check("{grpc: {}}"), 7).grpc.port == 7
