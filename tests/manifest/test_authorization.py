"""What is wrong with an AuthorizationPolicy, beyond its shape."""

from __future__ import annotations

import pytest


def source(**fields):
    return {"from": [{"source": fields}]}


def operation(**fields):
    return {"to": [{"operation": fields}]}


def when(key, *values):
    return {"when": [{"key": key, **({"values": list(values)} if values else {})}]}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"from": []}, "from: an empty list; leave it out to mean anything"),
        (source(), "from[0].source: an empty source; leave it out to mean anybody"),
        (operation(), "to[0].operation: an empty operation; leave it out to mean everything"),
        (
            operation(ports=["http"]),
            'to[0].operation.ports[0]: "http" is no port; give a number in quotes',
        ),
        (
            operation(ports=["15008"]),
            "to[0].operation.ports[0]: is where tunnels end; give the workload's own port",
        ),
        (
            source(ipBlocks=["pods"]),
            'from[0].source.ipBlocks[0]: "pods" is no address and no block of them',
        ),
        (
            source(principals=["*/sa/*"]),
            'from[0].source.principals[0]: "*/sa/*": a star stands at one end, for all that may '
            "stand there",
        ),
        (
            source(serviceAccounts=["a/b/c"]),
            'from[0].source.serviceAccounts[0]: "a/b/c": give NAME or NAMESPACE/NAME',
        ),
        (
            source(serviceAccounts=["a"], namespaces=["b"]),
            "from[0].source.serviceAccounts: stands without principals and namespaces; keep the "
            "one or the others",
        ),
        (operation(paths=[""]), 'to[0].operation.paths[0]: is empty; give "*" to mean any'),
        (
            operation(paths=["/a{*}"]),
            'to[0].operation.paths[0]: "/a{*}": {*} is one segment, {**} any number of them; '
            "neither beside anything else",
        ),
        (
            operation(paths=["/{**}/{*}"]),
            'to[0].operation.paths[0]: "/{**}/{*}": nothing in braces comes after {**}',
        ),
        (
            when("request.headers[x y]", "a"),
            'when[0].key: "request.headers[x y]": no header is called so',
        ),
        (
            when("request.headers", "a"),
            'when[0].key: "request.headers" is not supported; give one of source.principal, '
            "source.namespace, source.serviceAccount, source.ip, destination.port, "
            "request.auth.principal, request.auth.audiences, request.auth.presenter, "
            "request.headers[NAME], request.auth.claims[NAME]",
        ),
        (when("source.ip"), "when[0].values: is required, or notValues; add one"),
    ],
)
def test_what_a_rule_cannot_mean_is_refused(said, make, rule, message):
    assert said(make.authorization_policy(rule)) == [f"spec.rules[0].{message}"]


def test_nobody_is_asked_from_outside(said, make):
    assert said(make.authorization_policy(action="CUSTOM")) == [
        "spec.action: CUSTOM asks a server of yours, and none can be named; give ALLOW, DENY or "
        "AUDIT"
    ]


def test_a_dry_run_is_called_audit_here(said, make):
    raw = make.authorization_policy()
    raw["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    (found,) = said(raw)
    assert 'give "sixfold.dev/enforcement: audit" instead' in found
