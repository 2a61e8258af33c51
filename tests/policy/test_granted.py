"""Policies that are taken together say what they say one by one, in the same order."""

import random
from dataclasses import replace

import pytest
from bench.crowds import one_namespace, policy

from sixfold.model.layers import Layers
from sixfold.policy import granted, selector
from sixfold.policy.plan import PolicyCompiler, compile_policies

EVERYBODY, SUBJECT = {}, {"app-1": "scale-1"}


@pytest.fixture
def runs_of(monkeypatch):
    def patch(size):
        for module in (granted, selector):
            monkeypatch.setattr(module, "RUN", size)

    return patch


def some_policy(pick, name):
    """One of few kinds, so that many say the very same and the first of them is named."""
    peer = pick.choice([None, EVERYBODY, SUBJECT])
    port = pick.choice([None, 80])
    made = policy("big", name, pick.choice([EVERYBODY, SUBJECT, SUBJECT]), peer, port)
    if pick.random() < 0.1:
        made.metadata.annotations["sixfold.dev/enforcement"] = "audit"
    return made


@pytest.mark.parametrize("seed", range(12))
def test_runs_of_policies_come_to_what_each_of_them_says(seed, runs_of):
    pick = random.Random(seed)
    names = [f"{pick.choice('abc')}-{number}" for number in range(30)]
    policies = {f"big/{name}": some_policy(pick, name) for name in names[:20]}
    here = replace(one_namespace(3), policies=Layers(policies))
    numbers = {}
    number = lambda rule: numbers.setdefault(rule, len(numbers) + 1)  # noqa: E731
    followed = PolicyCompiler(number)
    for step in range(12):
        runs_of(3)
        tables = followed.compile(here).tables
        runs_of(1000)
        assert tables == compile_policies(here, number).tables, f"step {step}"
        name = pick.choice(names)
        gone = [f"big/{name}"] if pick.random() < 0.3 and f"big/{name}" in here.policies else []
        puts = {} if gone else {f"big/{name}": some_policy(pick, name)}
        here = replace(here, policies=here.policies.changed(puts, gone))
