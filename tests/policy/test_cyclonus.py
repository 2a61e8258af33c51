"""The 230 cases of the cyclonus suite, when the corpus lies beside the repository."""

import json
from pathlib import Path

import pytest
from tests.policy.worlds import passes, world

from sixfold.policy.plan import PolicyCompiler

CASES = Path(__file__).parents[3] / "shared/corpora/cyclonus/cases.jsonl"


@pytest.mark.skipif(not CASES.exists(), reason=f"no corpus at {CASES}")
def test_all_cyclonus_cases_agree(capsys):
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    wrong = []
    flows = 0
    for case in cases:
        compiler, identities = PolicyCompiler(), {}  # steps follow each other on one system
        for at, step in enumerate(case["steps"]):
            here = world(step, identities)
            plan = compiler.compile(here)
            for column, rows in (step["expected"] or {}).items():
                protocol, port = column.split("/")
                for source, row in zip(step["pods"], rows, strict=True):
                    for destination, mark in zip(step["pods"], row, strict=True):
                        if source is destination:
                            continue  # a pod always reaches itself; cyclonus judges it anyway
                        flows += 1
                        flow = (source, destination, protocol, int(port))
                        if passes(plan, here, flow) != (mark == "1"):
                            wrong.append(
                                (case["id"], at, source["pod"], destination["pod"], column)
                            )
    with capsys.disabled():
        print(f"\ncyclonus offline: {len(cases)} cases, {flows} flows, {len(wrong)} differ")
    assert len(cases) == 230
    assert not wrong, f"{len(wrong)} of {flows} flows differ: {wrong[:10]}"
