"""What a Posture can say, and cannot."""

import pytest


@pytest.mark.parametrize(
    "relaxation",
    [
        {},
        {"until": "2126-12-24T18:00:00.5+01:00"},
        {"until": "2020-01-01T00:00:00Z"},
        {"enforcement": "audit", "podSelector": None, "ports": []},
        {"discovery": "open", "podSelector": None, "ports": None},
    ],
    ids=["as-it-is", "another-zone", "over", "a-namespace", "names"],
)
def test_a_relaxation_is_taken(said, make, relaxation):
    assert said(make.posture(relaxation)) == []


@pytest.mark.parametrize(
    ("relaxation", "message"),
    [
        ({"until": "tomorrow"}, '].until: "tomorrow" is no time; give one like'),
        ({"until": "2126-12-24"}, "is no time"),
        ({"until": "2126-12-24T18:00:00"}, "is no time"),
        ({"until": "2126-13-24T18:00:00Z"}, "is no time"),
        ({"until": None}, "until: is required"),
        ({"reason": " "}, "reason: is empty"),
        ({"mtls": None}, "relaxations[0]: relaxes nothing"),
        ({"mtls": "strict"}, "relaxations[0].mtls"),
        ({"name": "Legacy"}, "relaxations[0].name"),
        ({"namespace": ""}, "relaxations[0].namespace"),
        ({"discovery": "open"}, "podSelector: names are told of a whole namespace"),
        ({"ports": [{"port": 0}]}, "ports[0].port: 0 is not a port"),
        ({"ports": [{"port": 53, "protocol": "UDP"}]}, "53/UDP has no mode of mTLS"),
        ({"for": "3d"}, "for: unknown field"),
    ],
)
def test_what_is_wrong_with_a_relaxation_is_said_with_its_path(said, make, relaxation, message):
    found = said(make.posture(relaxation))
    assert any(message in one for one in found), found


def test_there_is_one_posture(said, make):
    raw = make.posture()
    raw["metadata"]["name"] = "other"
    (line,) = said(raw)
    assert 'metadata.name: "other": there is one Posture; call it default' in line


def test_two_relaxations_have_two_names(said, make):
    raw = make.posture()
    raw["spec"]["relaxations"] *= 2
    (line,) = said(raw)
    assert 'relaxations[1].name: "legacy" is there already' in line
