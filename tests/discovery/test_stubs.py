"""Whose servers are asked for a name of the world."""

import pytest

from sixfold.discovery.stubs import stub_of, stubs_of


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("db.corp.example", "corp.example"),
        ("corp.example", "corp.example"),
        ("a.lab.corp.example", "lab.corp.example"),
        ("notcorp.example", None),
        ("example", None),
        ("", None),
    ],
)
def test_a_name_is_of_the_longest_domain_that_it_is_in(name: str, domain: str | None):
    assert stub_of(name, {"corp.example", "lab.corp.example"}) == domain


def test_a_domain_given_twice_has_the_servers_of_both():
    assert stubs_of(["Corp.example.=192.0.2.1", "corp.example=[2001:db8::1]:54,192.0.2.2"]) == {
        "corp.example": ("192.0.2.1", "[2001:db8::1]:54", "192.0.2.2")
    }
