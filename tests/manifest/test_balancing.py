"""Annotations about balancing: what is not understood is refused, with its place."""

from __future__ import annotations

import pytest

from sixfold.errors import ManifestError
from sixfold.manifest import loads

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations:
    {annotation}: {value}
spec: {{ports: [{{port: 80}}]}}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    {annotation}: {value}
spec: {{containers: [{{name: main, command: [sleep, inf]}}]}}
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata:
      labels: {{app: web}}
      annotations:
        {annotation}: {value}
    spec: {{containers: [{{name: main, command: [sleep, inf]}}]}}
"""
ALGORITHM, WEIGHT = "sixfold.dev/lb-algorithm", "sixfold.dev/lb-weight"
SIZE, DRAIN = "sixfold.dev/lb-maglev-table-size", "sixfold.dev/lb-drain"
CILIUM = "service.cilium.io/lb-algorithm"
FAILOVER, OVERPROVISIONING = "sixfold.dev/lb-failover", "sixfold.dev/lb-overprovisioning"
FAILBACK = "sixfold.dev/lb-failback-seconds"


def problem(template, annotation, value):
    with pytest.raises(ManifestError) as caught:
        loads(template.format(annotation=annotation, value=value), "web.yaml")
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("template", "annotation", "value"),
    [
        (SERVICE, ALGORITHM, "round-robin"),
        (SERVICE, ALGORITHM, "weighted-round-robin"),
        (SERVICE, CILIUM, "maglev"),
        (SERVICE, SIZE, '"251"'),
        (POD, WEIGHT, '"0"'),
        (POD, WEIGHT, '"100"'),
        (POD, DRAIN, '"true"'),
        (DEPLOYMENT, WEIGHT, '"5"'),
        (SERVICE, FAILOVER, "locality"),
        (SERVICE, FAILOVER, "eu/a, eu, us"),
    ],
)
def test_what_is_understood_is_taken(template, annotation, value):
    loads(template.format(annotation=annotation, value=value))


@pytest.mark.parametrize(
    ("template", "annotation", "value", "message"),
    [
        (SERVICE, ALGORITHM, "least-connection", "did you mean least-connections?"),
        (SERVICE, CILIUM, "wrr", '"wrr" is not one of random, round-robin'),
        (SERVICE, SIZE, '"1000"', "give 251, 509"),
        (SERVICE, WEIGHT, '"5"', "means nothing on a Service; give it to a Pod"),
        (SERVICE, "sixfold.dev/lb-algoritm", "x", "did you mean sixfold.dev/lb-algorithm?"),
        (POD, WEIGHT, '"101"', "give 0 (maintenance) to 100"),
        (POD, WEIGHT, '"-1"', "is no weight"),
        (POD, WEIGHT, "heavy", "is no weight"),
        (POD, DRAIN, '"yes"', 'give "true", or "false" to end it'),
        (POD, ALGORITHM, "random", "means nothing on a Pod; give it to a Service"),
        (DEPLOYMENT, WEIGHT, '"1.5"', "is no weight"),
        (SERVICE, FAILOVER, "eu/a/b", '"eu/a/b" is no place; give "locality", or regions'),
        (SERVICE, FAILOVER, '"eu,,us"', '"" is no place'),
        (SERVICE, FAILOVER, "eu,us,eu", '"eu" is there twice'),
        (POD, FAILOVER, "locality", "means nothing on a Pod; give it to a Service"),
        (SERVICE, OVERPROVISIONING, '"99"', "give 100 to 1000"),
        (SERVICE, OVERPROVISIONING, '"140"', "means nothing without sixfold.dev/lb-failover"),
        (SERVICE, FAILBACK, '"3601"', "give 0 to 3600"),
        (SERVICE, FAILBACK, "30s", "is no number of seconds"),
    ],
)
def test_what_is_not_understood_is_refused_at_its_line(template, annotation, value, message):
    found = problem(template, annotation, value)
    assert message in found.message
    assert annotation in found.path
    text = template.format(annotation=annotation, value=value)
    assert annotation in text.splitlines()[found.line - 1]


@pytest.mark.parametrize(
    "rule", ["trafficDistribution: PreferSameZone", "internalTrafficPolicy: Local"]
)
def test_a_service_has_one_rule_about_places(rule):
    text = SERVICE.format(annotation=FAILOVER, value="locality").replace(
        "{ports", f"{{{rule}, ports"
    )
    with pytest.raises(ManifestError) as caught:
        loads(text, "web.yaml")
    (found,) = caught.value.problems
    assert found.path == f"spec.{rule.partition(':')[0]}"
    assert "is another rule than the annotation sixfold.dev/lb-failover; keep one" in found.message
