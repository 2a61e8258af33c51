from __future__ import annotations

import pytest

from sixfold.model.policy import EgressRule, IngressRule, NetworkPolicySpec


@pytest.mark.parametrize(
    ("spec", "isolates"),
    [
        pytest.param(NetworkPolicySpec(), {"Ingress"}, id="nothing written"),
        pytest.param(NetworkPolicySpec(egress=[]), {"Ingress"}, id="empty egress"),
        pytest.param(
            NetworkPolicySpec(egress=[EgressRule()]), {"Ingress", "Egress"}, id="egress rule"
        ),
        pytest.param(
            NetworkPolicySpec(policy_types=["Egress"], ingress=[IngressRule()]),
            {"Egress"},
            id="written types are taken literally",
        ),
        pytest.param(
            NetworkPolicySpec(policy_types=[], egress=[EgressRule()]),
            {"Ingress", "Egress"},
            id="empty types",
        ),
    ],
)
def test_the_directions_that_are_isolated_follow_network_policy_v1(spec, isolates):
    assert spec.isolates == isolates
