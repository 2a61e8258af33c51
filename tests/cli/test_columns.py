from datetime import UTC, datetime

import pytest

from sixfold.cli.columns import COLUMNS, label_selector, pod_status
from sixfold.cli.output import age, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (3599, "59m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 120, "3h2m"),
        (47 * 3600, "47h"),
        (3 * 86400 + 3600, "3d1h"),
        (30 * 86400, "30d"),
    ],
)
def test_durations_are_kubectls(seconds, text):
    assert duration(seconds) == text


def test_age_counts_from_the_timestamp():
    now = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert age("2026-01-01T00:00:00Z", now) == "30s"
    assert age(None) == "<unknown>"
    assert age("soon") == "<invalid>"


def container(state, ready=False):
    return {"name": "c", "ready": ready, "restartCount": 0, "state": state}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param({"phase": "Pending"}, "Pending", id="pending"),
        pytest.param(
            {"phase": "Running", "containerStatuses": [container({"running": {}}, True)]},
            "Running",
            id="running",
        ),
        pytest.param(
            {"containerStatuses": [container({"terminated": {"exitCode": 3}})]},
            "ExitCode:3",
            id="exit code",
        ),
        pytest.param(
            {
                "phase": "Succeeded",
                "containerStatuses": [
                    container({"terminated": {"exitCode": 0, "reason": "Completed"}})
                ],
            },
            "Completed",
            id="completed",
        ),
        pytest.param(
            {
                "initContainerStatuses": [container({"terminated": {"exitCode": 1}})],
                "containerStatuses": [container({"waiting": {"reason": "PodInitializing"}})],
            },
            "Init:ExitCode:1",
            id="init failed",
        ),
        pytest.param(
            {
                "initContainerStatuses": [
                    container({"terminated": {"exitCode": 0, "reason": "Completed"}}),
                    container({"running": {}}),
                ],
                "containerStatuses": [container({"waiting": {"reason": "PodInitializing"}})],
            },
            "Init:1/2",
            id="second init container runs",
        ),
        pytest.param(
            {
                "phase": "Running",
                "conditions": [{"type": "Initialized", "status": "True"}],
                "initContainerStatuses": [container({"running": {}})],
                "containerStatuses": [container({"running": {}}, True)],
            },
            "Running",
            id="sidecar not ready",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "AddressesExhausted"}, "AddressesExhausted", id="reason"
        ),
    ],
)
def test_pod_status_is_the_reason_that_matters_most(status, text):
    assert pod_status({"metadata": {}, "status": status}) == text


def test_a_pod_on_its_way_out_is_terminating():
    pod = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {}}
    assert pod_status(pod) == "Terminating"


def test_selectors_read_as_kubectl_prints_them():
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "env", "operator": "NotIn", "values": ["dev"]},
            {"key": "x", "operator": "Exists"},
            {"key": "y", "operator": "DoesNotExist"},
        ],
    }
    assert label_selector(selector) == "app=web,tier in (a,b),env notin (dev),x,!y"
    assert label_selector({}) == "<none>"


@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_of_a_bare_object_have_a_cell_for_each_column(kind):
    columns = COLUMNS[kind]
    row = columns.row({"metadata": {"name": "bare"}}, wide=True)
    assert len(row) == len(columns.header(wide=True))
    assert all(isinstance(cell, str) for cell in row)


def test_restarts_are_those_of_init_containers_while_they_work():
    again = {**container({"waiting": {"reason": "CrashLoopBackOff"}}), "restartCount": 2}
    status = {"initContainerStatuses": [again], "containerStatuses": [container({"waiting": {}})]}
    row = COLUMNS["Pod"].row({"metadata": {"name": "web"}, "status": status}, wide=False)
    assert row[2:4] == ["Init:CrashLoopBackOff", "2"]


def test_sidecars_count_as_containers_of_their_pod():
    up = {**container({"running": {}}), "ready": True}
    row = COLUMNS["Pod"].row(
        {
            "metadata": {"name": "web"},
            "spec": {
                "initContainers": [{"name": "once"}, {"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "main"}],
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Initialized", "status": "True"}],
                "initContainerStatuses": [
                    {**up, "name": "once"},
                    {**up, "name": "side", "restartCount": 3},
                ],
                "containerStatuses": [up],
            },
        },
        wide=False,
    )
    assert row[1:4] == ["2/2", "Running", "3"]
