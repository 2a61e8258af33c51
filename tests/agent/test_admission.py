"""What may enter the store a second time."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from sixfold.agent.addresses import Addresses
from sixfold.agent.admission import admit
from sixfold.errors import ManifestError
from sixfold.manifest import decode, loads
from sixfold.model.config import Config
from sixfold.model.meta import Key
from sixfold.store import Database, Objects

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, command: [sleep, inf]}]}
"""
SAME = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: other}, uid: u, resourceVersion: "1"}
spec:
  nodeName: vm
  restartPolicy: Always
  containers: [{name: c, command: [sleep, inf], ports: []}]
status: {phase: Running}
"""


@pytest.fixture
def apply(tmp_path: Path):
    database = Database(tmp_path / "state.db")
    objects = Objects(database, lambda raw: decode(raw).object)
    addresses = Addresses(database, Config())

    def put(text: str) -> list[str]:
        admitted = admit(loads(text).objects, objects, addresses, 0)
        return [f"{r.key} {r.action}" for r in objects.put(admitted, lambda: "uid", "now")]

    put.objects = objects
    return put


def test_a_pod_as_get_shows_it_may_be_applied_again(apply):
    apply(POD)
    assert apply(SAME) == ["pod default/web configured"]


def test_the_program_of_a_pod_may_not_change(apply):
    apply(POD)
    with pytest.raises(ManifestError, match=r"^-:2: spec: is immutable; delete pod default/web"):
        apply(POD.replace("inf", "1s"))


def drained(apply) -> str | None:
    """The annotation of the pod, as it is stored."""
    pod = apply.objects.get(Key("Pod", "default", "web")).raw
    return pod["metadata"].get("annotations", {}).get("sixfold.dev/lb-drain")


def with_drain(value: str) -> str:
    note = f'annotations: {{sixfold.dev/lb-drain: "{value}"}}'
    return POD.replace("labels: {app: web}", f"labels: {{app: web}}, {note}")


def test_a_manifest_that_is_applied_again_ends_no_drain(apply):
    apply(POD)
    apply(with_drain("true"))
    assert apply(POD) == ["pod default/web unchanged"]
    assert drained(apply) == "true"
    apply(with_drain("false"))
    assert drained(apply) is None
    apply(POD)
    assert drained(apply) is None


def service(**spec) -> str:
    whole = {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec}
    raw = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": whole}
    return json.dumps(raw)


def stack(apply) -> tuple[str, list[str], list[int]]:
    """Policy, families, and the versions of the cluster addresses."""
    spec = apply.objects.get(Key("Service", "default", "web")).raw["spec"]
    addresses = [ip_address(text).version for text in spec["clusterIPs"] if text != "None"]
    return spec["ipFamilyPolicy"], spec["ipFamilies"], addresses


DUAL, REQUIRED = {"ipFamilyPolicy": "PreferDualStack"}, {"ipFamilyPolicy": "RequireDualStack"}
NOBODY = {"clusterIP": "None", "selector": {}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, ("SingleStack", ["IPv4"], [4]), id="nothing said"),
        pytest.param(DUAL, ("PreferDualStack", ["IPv4", "IPv6"], [4, 6]), id="dual"),
        pytest.param({"ipFamilies": ["IPv6"]}, ("SingleStack", ["IPv6"], [6]), id="IPv6"),
        pytest.param(
            {**REQUIRED, "ipFamilies": ["IPv6"]},
            ("RequireDualStack", ["IPv6", "IPv4"], [6, 4]),
            id="IPv6 first",
        ),
        pytest.param(
            {"clusterIP": "fd00:5f:96::9"}, ("SingleStack", ["IPv6"], [6]), id="by the address"
        ),
        pytest.param(
            {**DUAL, "clusterIP": "fd00:5f:96::9"},
            ("PreferDualStack", ["IPv6", "IPv4"], [6, 4]),
            id="one address of two",
        ),
        pytest.param({"clusterIP": "None"}, ("SingleStack", ["IPv4"], []), id="headless"),
        pytest.param(NOBODY, ("RequireDualStack", ["IPv4", "IPv6"], []), id="headless, no pods"),
        pytest.param(
            {**NOBODY, "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]},
            ("SingleStack", ["IPv6"], []),
            id="headless, no pods, one family",
        ),
    ],
)
def test_families_and_addresses_are_filled_in_as_the_api_does(apply, spec, expected):
    apply(service(**spec))
    assert stack(apply) == expected
    apply(service(**spec))
    assert stack(apply) == expected


def test_a_second_family_comes_and_goes_and_the_first_stays(apply):
    apply(service())
    (first,) = apply.objects.get(Key("Service", "default", "web")).raw["spec"]["clusterIPs"]
    apply(service(**DUAL))
    assert stack(apply) == ("PreferDualStack", ["IPv4", "IPv6"], [4, 6])
    apply(service())  # what is not said stays
    assert stack(apply) == ("PreferDualStack", ["IPv4", "IPv6"], [4, 6])
    apply(service(ipFamilyPolicy="SingleStack"))
    assert stack(apply) == ("SingleStack", ["IPv4"], [4])
    assert apply.objects.get(Key("Service", "default", "web")).raw["spec"]["clusterIP"] == first
    apply(service(**REQUIRED))
    assert stack(apply) == ("RequireDualStack", ["IPv4", "IPv6"], [4, 6])
    with pytest.raises(ManifestError, match="its first family is IPv4 and stays"):
        apply(service(ipFamilies=["IPv6"]))


GLOBAL = """
apiVersion: sixfold.dev/v1
kind: GlobalName
metadata: {name: shop}
spec: {hostname: shop.example.org, regions: [{name: here, addresses: [192.0.2.1]}]}
"""
OTHER = GLOBAL.replace("name: shop}", "name: other}")


def test_a_hostname_has_one_global_name(apply):
    apply(GLOBAL)
    with pytest.raises(ManifestError, match=r"spec.hostname: shop.example.org is that of global"):
        apply(OTHER)
    assert apply(GLOBAL) == ["globalname shop unchanged"]
    apply(GLOBAL.replace("shop.example", "moved.example"))
    assert apply(OTHER) == ["globalname other created"]


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop}
spec:
  hosts: [shop.example.org]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
"""


def test_what_is_answered_of_a_hostname_one_object_says(apply):
    apply(ENTRY)
    with pytest.raises(ManifestError, match=r"spec.hostname: shop.example.org is that of service"):
        apply(GLOBAL)
    with pytest.raises(
        ManifestError, match=r"spec.hosts\[0\]: shop.example.org is that of service"
    ):
        apply(ENTRY.replace("name: shop}", "name: other}"))
    asked_upstream = ENTRY.replace("name: shop}", "name: dns}").replace("STATIC", "DNS")
    apply(asked_upstream.replace("  endpoints: [{address: 192.0.2.1}]\n", ""))


def test_no_entry_says_where_a_name_of_the_cluster_is(apply):
    ours = ENTRY.replace("shop.example.org", "web.shop.svc.cluster.local")
    with pytest.raises(ManifestError, match=r"spec.hosts\[0\]: .* lies in a zone of the cluster"):
        apply(ours)


def test_two_of_one_apply_with_one_hostname_are_refused_and_nothing_is_taken(apply):
    with pytest.raises(ManifestError, match=r"^-:7: spec.hostname: "):
        apply(f"{GLOBAL}---{OTHER}")
    assert not apply.objects.of("GlobalName")


def test_two_of_one_apply_may_exchange_their_hostnames(apply):
    apply(GLOBAL)
    other = OTHER.replace("shop.ex", "other.ex")
    apply(other)
    moved = GLOBAL.replace("shop.ex", "other.ex")
    assert apply(f"{moved}---{OTHER}") == [
        "globalname shop configured",
        "globalname other configured",
    ]
