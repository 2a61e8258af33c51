from __future__ import annotations

import msgspec
import pytest

from sixfold.model.workload import Container, Deployment, Job, PodSpec, Probe, StatefulSet

TEMPLATE = {"spec": {"containers": [{"name": "a"}]}}


def test_what_a_pod_does_not_say_has_the_defaults_of_kubernetes():
    spec = msgspec.convert({"containers": [{"name": "a"}]}, PodSpec)
    assert (spec.restart_policy, spec.termination_grace_period_seconds) == ("Always", 30)
    assert (spec.service_account_name, spec.dns_policy) == ("default", "ClusterFirst")
    assert spec.host_network is False


def test_what_a_probe_does_not_say_has_the_defaults_of_kubernetes():
    probe = msgspec.convert({}, Probe)
    timing = (probe.initial_delay_seconds, probe.timeout_seconds, probe.period_seconds)
    assert timing == (0, 1, 10)
    assert (probe.success_threshold, probe.failure_threshold) == (1, 3)


def test_what_controllers_do_not_say_has_the_defaults_of_kubernetes():
    raw = {"metadata": {}, "spec": {"selector": {}, "template": TEMPLATE}}
    assert msgspec.convert(raw, Deployment).spec.replicas == 1
    assert msgspec.convert(raw, StatefulSet).spec.pod_management_policy == "OrderedReady"
    job = msgspec.convert({"metadata": {}, "spec": {"template": TEMPLATE}}, Job)
    assert (job.spec.completions, job.spec.parallelism, job.spec.backoff_limit) == (1, 1, 6)


def test_a_struct_refuses_fields_that_it_does_not_know():
    with pytest.raises(msgspec.ValidationError, match="unknown field `volumes`"):
        msgspec.convert({"containers": [], "volumes": []}, PodSpec)


def test_defaults_are_not_shared_between_objects():
    one, two = (msgspec.convert({"name": "a"}, Container) for _ in range(2))
    one.env.append("x")
    assert two.env == []
