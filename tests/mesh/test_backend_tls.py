"""Backends that speak TLS: which policy holds for a port, and what it checks."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.mesh.standalone import world
from tests.system.certificates import Authority

from sixfold.mesh.backend_tls import SYSTEM, Verified, context, status_of, tls_of
from sixfold.mesh.routes import ServicePort
from sixfold.model.backendtls import BackendTLSPolicy
from sixfold.model.secret import ConfigMap

PEM = Authority().pem


def policy(name="p", section="", target="a", created="2026-01-01T00:00:00Z", **validation):
    given = {"hostname": "a.com", "caCertificateRefs": [{"name": "ca"}], **validation}
    refs = [{"name": target, **({"sectionName": section} if section else {})}]
    meta = {"name": name, "namespace": "shop", "creationTimestamp": created}
    spec = {"targetRefs": refs, "validation": given}
    return msgspec.convert({"metadata": meta, "spec": spec}, BackendTLSPolicy)


def given(*policies, pem=PEM):
    kept = msgspec.convert(
        {"metadata": {"name": "ca", "namespace": "shop"}, "data": {"ca.crt": pem}}, ConfigMap
    )
    return replace(
        world(),
        backend_tls={f"shop/{one.metadata.name}": one for one in policies},
        config_maps={"shop/ca": kept},
    )


def reasons(asked, one):
    (entry,) = status_of(asked, one)["ancestors"]
    return [(it["type"], it["status"], it["reason"]) for it in entry["conditions"]]


def test_a_backend_proves_the_name_that_it_is_called_by():
    one = policy()
    found = tls_of(given(one))
    assert found == {
        ServicePort("shop/a", port): Verified("a.com", PEM, (("DNS", "a.com"),))
        for port in (80, 81)
    }
    assert reasons(given(one), one) == [
        ("Accepted", "True", "Accepted"),
        ("ResolvedRefs", "True", "ResolvedRefs"),
    ]


def test_other_names_are_proved_instead_and_the_host_trusted_where_asked_for():
    names = [
        {"type": "URI", "uri": "spiffe://x/y"},
        {"type": "Hostname", "hostname": "b.com"},
    ]
    more = {"wellKnownCACertificates": "System", "subjectAltNames": names}
    found = tls_of(given(policy(caCertificateRefs=[], **more)))[ServicePort("shop/a", 80)]
    assert found == Verified("a.com", "", (("URI", "spiffe://x/y"), ("DNS", "b.com")))
    told = context(found, "h2")
    assert told.sni == "a.com"
    checked = told.common_tls_context.validation_context
    assert checked.trusted_ca.filename == SYSTEM
    assert [one.matcher.exact for one in checked.match_typed_subject_alt_names] == [
        "spiffe://x/y",
        "b.com",
    ]


def test_a_policy_about_one_port_goes_before_others_and_the_older_before_the_younger():
    wide, old = policy("wide"), policy("old", "other", created="2026-02-01T00:00:00Z")
    young = policy("young", "other", created="2026-03-01T00:00:00Z", hostname="y.com")
    asked = given(young, wide, policy("old", "other", hostname="o.com"))
    found = {port.port: one.host for port, one in tls_of(asked).items()}
    assert found == {80: "a.com", 81: "o.com"}
    assert reasons(given(young, old), young)[0] == ("Accepted", "False", "Conflicted")


@pytest.mark.parametrize(
    ("one", "pem", "expected"),
    [
        (policy(target="missing"), PEM, ("Accepted", "False", "TargetNotFound")),
        (policy(), "none", ("Accepted", "False", "NoValidCACertificate")),
        (
            policy(caCertificateRefs=[{"name": "x"}]),
            PEM,
            ("Accepted", "False", "NoValidCACertificate"),
        ),
    ],
)
def test_what_cannot_be_checked_is_said_and_not_sent(one, pem, expected):
    asked = given(one, pem=pem)
    assert reasons(asked, one)[0] == expected
    assert not any(isinstance(it, Verified) and it.pem != PEM for it in tls_of(asked).values())
