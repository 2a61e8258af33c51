"""What is wrong with a PeerAuthentication, beyond its shape."""

from __future__ import annotations

import pytest

from sixfold.manifest import decode


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param(
            {"selector": None},
            "portLevelMtls: needs a selector with matchLabels: ports are of workloads; add it",
            id="ports without a selector",
        ),
        pytest.param(
            {"portLevelMtls": {"http": {"mode": "STRICT"}}},
            'portLevelMtls.http: "http" is no port; give a number',
            id="a name",
        ),
        pytest.param(
            {"portLevelMtls": {"15008": {"mode": "STRICT"}}},
            'portLevelMtls["15008"]: is where tunnels end: it has no mode; remove it',
            id="the tunnel's own port",
        ),
        pytest.param(
            {"mtls": {"mode": "strict"}},
            'mtls.mode: "strict" is not one of DISABLE, PERMISSIVE, STRICT, UNSET; '
            "did you mean STRICT?",
            id="no mode",
        ),
    ],
)
def test_what_it_cannot_say_is_refused(said, make, spec, message):
    assert said(make.peer_authentication(spec)) == [f"spec.{message}"]


def test_a_port_out_of_range_is_refused(said, make):
    (found,) = said(make.peer_authentication({"portLevelMtls": {"70000": {"mode": "STRICT"}}}))
    assert found.startswith('spec.portLevelMtls["70000"]: 70000 is ')


def test_ports_may_be_written_as_numbers(make):
    raw = make.peer_authentication({"portLevelMtls": {8080: {"mode": "DISABLE"}}})
    assert decode(raw).object.spec.port_level_mtls["8080"].mode == "DISABLE"


def test_the_older_version_is_the_same(said, make):
    raw = make.peer_authentication()
    assert said({**raw, "apiVersion": "security.istio.io/v1beta1"}) == []
