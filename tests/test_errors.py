from __future__ import annotations

import pytest

from sixfold.errors import ManifestError, Problem, SixfoldError, UnavailableError


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        pytest.param(
            Problem("a.yaml", 3, "spec.x", "is odd"), "a.yaml:3: spec.x: is odd", id="all"
        ),
        pytest.param(Problem("a.yaml", 3, "", "is odd"), "a.yaml:3: is odd", id="whole object"),
        pytest.param(Problem("a.yaml", 0, "", "is odd"), "a.yaml: is odd", id="whole file"),
        pytest.param(Problem("a.yaml", 3, "", "is odd", 5), "a.yaml:3:5: is odd", id="column"),
        pytest.param(Problem("", 0, "spec.x", "is odd"), "spec.x: is odd", id="no source"),
        pytest.param(Problem("", 0, "", "is odd"), "is odd", id="message only"),
    ],
)
def test_a_problem_reads_where_what_why(problem, text):
    assert str(problem) == text


def test_a_manifest_error_is_all_its_problems_one_a_line():
    problems = [Problem("a", 1, "", "x"), Problem("b", 2, "", "y")]
    error = ManifestError(problems)
    assert isinstance(error, SixfoldError)
    assert str(error) == "a:1: x\nb:2: y"
    assert error.problems == tuple(problems)


def test_what_is_away_may_be_tried_again():
    assert UnavailableError("x").retry_s == 1.0
    assert UnavailableError("x", retry_s=5.0).retry_s == 5.0
