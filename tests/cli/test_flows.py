import json

import pytest

RECORD = {
    "flow": {
        "time": "2025-11-23T08:00:00.123456789Z",
        "verdict": "DROPPED",
        "IP": {"source": "10.244.0.4", "destination": "2001:db8::1", "ipVersion": "IPv6"},
        "l4": {"TCP": {"source_port": 41234, "destination_port": 6379, "flags": {"SYN": True}}},
        "source": {"identity": 1234, "namespace": "shop", "pod_name": "web-1"},
        "destination": {"identity": 2, "labels": ["reserved:world"]},
        "destination_service": {"name": "db", "namespace": "shop"},
        "traffic_direction": "EGRESS",
        "Summary": "TCP Flags: SYN",
        "drop_reason_desc": "POLICY_DENIED",
        "sixfold": {"rule": "egress default-deny (zero-trust)", "service_port": 80},
    },
    "node_name": "basecamp",
    "time": "2025-11-23T08:00:00.123456789Z",
}
TEXT = "Nov 23 08:00:00.123: shop/web-1:41234 (ID:1234) -> … policy-verdict:egress DROPPED (TCP)"


def lines_of(*records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture
def flowing(agent):
    agent.answers["GET /v1/flows"] = lines_of({**RECORD, "text": TEXT})
    return agent


def test_compact_is_the_agents_line(sixfold, flowing):
    result = sixfold("flows")
    assert (result.exit_code, result.stdout) == (0, TEXT + "\n")


def test_the_verdict_is_coloured_on_a_terminal_only(sixfold, flowing):
    assert "\x1b[31mDROPPED\x1b[0m" in sixfold("flows", color=True).stdout
    assert "\x1b" not in sixfold("flows").stdout


def test_json_is_hubbles_response_one_a_line(sixfold, flowing):
    assert json.loads(sixfold("flows", "-o", "json").stdout) == RECORD


def test_a_table_names_both_sides_the_service_and_the_rule(sixfold, flowing):
    header, row = sixfold("flows", "-o", "table").stdout.splitlines()
    assert header.split() == ["TIME", "VERDICT", "SOURCE", "DESTINATION", "RULE"]
    assert row.split("   ") == [
        "11-23 08:00:00.123",
        "DROPPED",
        "shop/web-1:41234",
        "[2001:db8::1]:6379 (shop/db:80)",
        "egress default-deny (zero-trust)",
    ]


def test_a_table_that_goes_on_has_columns_of_fixed_width(sixfold, flowing):
    header, row = sixfold("flows", "-f", "-o", "table").stdout.splitlines()
    assert header.index("RULE") == row.index("egress default-deny")


def test_options_reach_the_agent(sixfold, flowing):
    options = "--from shop/web --from app=x --to db --verdict DROPPED --port 80 --last 5 -f"
    result = sixfold("flows", *options.split(), "--drop-reason", "policy_denied", "-n", "shop")
    assert result.exit_code == 0, result.stderr
    assert flowing.last().params == {
        "from": "shop/web,app=x",
        "to": "db",
        "verdict": "DROPPED",
        "port": "80",
        "last": "5",
        "follow": "true",
        "drop_reason": "policy_denied",
        "namespace": "shop",
    }


@pytest.mark.parametrize(
    "options", [["--verdict", "MAYBE"], ["--port", "0"], ["--since", "soon"], ["-o", "name"]]
)
def test_a_filter_that_means_nothing_is_wrong_usage(options, sixfold, flowing):
    assert sixfold("flows", *options).exit_code == 2
    assert flowing.calls == []


def test_loss_is_never_silent(sixfold, flowing):
    flowing.headers["X-Flows-Lost"] = "12"
    flowing.answers["GET /v1/flows"] = lines_of(
        {"lost_events": {"num_events_lost": 3}}, {**RECORD, "text": TEXT}
    )
    result = sixfold("flows", "-o", "json")
    assert "12 events lost" in result.stderr
    assert "3 events lost here" in result.stderr
    assert len(result.stdout.splitlines()) == 1
