from __future__ import annotations

import pytest

from sixfold.model.service import ServiceSpec


@pytest.mark.parametrize(
    ("spec", "headless"),
    [
        (ServiceSpec(), False),
        (ServiceSpec(cluster_ip="None"), True),
        (ServiceSpec(cluster_ips=["None"]), True),
        (ServiceSpec(cluster_ip="10.96.0.1"), False),
    ],
)
def test_a_service_is_headless_when_its_address_is_none(spec, headless):
    assert spec.headless is headless
