from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from tests.store.conftest import full_disk

from sixfold.agent.addresses import Addresses
from sixfold.agent.admission import admit
from sixfold.errors import HostError, ManifestError
from sixfold.manifest import decode, loads
from sixfold.model.config import Config
from sixfold.routing.ipam import ExhaustedError
from sixfold.store import Database, Objects

SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {ports: [{port: 80}]%s}}"


def held(database: Database) -> list[str]:
    rows = database.connection.execute("SELECT address FROM addresses WHERE freed_at IS NULL")
    return sorted(address for (address,) in rows)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "state.db")


def test_half_of_a_pods_addresses_is_never_kept(database: Database):
    """Half a pair that is only in memory would be given twice after a restart."""
    small = Config(pod_ipv6=IPv6Network("fd00::/125"))  # six of IPv6, many of IPv4
    addresses = Addresses(database, small)
    for number in range(6):
        addresses.allocate_pod(f"uid-{number}", 0)
    before = held(database)
    with pytest.raises(ExhaustedError, match="fd00::/125"):
        addresses.allocate_pod("late", 0)
    assert held(database) == before
    addresses.release("uid-0", 0)
    got, _ = addresses.allocate_pod("late", small.ip_reuse_grace_s + 1)
    assert str(got) in held(database)


def test_a_pod_is_given_the_same_addresses_again_and_after_a_restart(database: Database):
    first = Addresses(database, Config()).allocate_pod("uid", 0)
    assert Addresses(database, Config()).allocate_pod("uid", 1) == first


def test_what_no_object_speaks_for_is_released(database: Database):
    addresses = Addresses(database, Config())
    addresses.allocate_pod("crashed", 0)
    addresses.release_all_but([], 1)
    assert held(database) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(SERVICE % ("a", ", clusterIP: 10.9.0.9"), id="not-of-the-pool"),
        pytest.param(
            SERVICE % ("a", ", clusterIPs: [10.96.0.7, 'fd::9'], ipFamilyPolicy: PreferDualStack"),
            id="second-address-not-of-the-pool",
        ),
        pytest.param(
            SERVICE % ("a", "") + "\n---\n" + SERVICE % ("b", ", clusterIP: 10.9.0.9"),
            id="another-object-is-wrong",
        ),
    ],
)
def test_a_refused_apply_takes_no_address(database: Database, text: str):
    addresses, objects = Addresses(database, Config()), Objects(database, decode)
    with pytest.raises(ManifestError, match=r"spec\.clusterIP"), database.transaction():
        admit(loads(text).objects, objects, addresses, 0)
    assert held(database) == []


def test_a_rehearsed_apply_takes_no_address(database: Database):
    config = Config(service_ipv4=IPv4Network("10.96.0.0/29"))
    addresses, objects = Addresses(database, config), Objects(database, decode)
    for _ in range(20):  # more than the pool has
        with database.rehearsal():
            *_, (_, raw) = admit(loads(SERVICE % ("a", "")).objects, objects, addresses, 0)
    assert raw["spec"]["clusterIP"] == "10.96.0.2"
    assert held(database) == []


def test_an_address_that_the_disk_did_not_take_is_free_for_the_next(database: Database):
    addresses = Addresses(database, Config(pod_ipv4=IPv4Network("10.9.0.0/29")))
    for number in range(20):  # more than the pool has
        with pytest.raises(HostError, match="full"), full_disk(database):
            addresses.allocate_pod(f"uid-{number}" * 500, 0)
    assert str(addresses.allocate_pod("uid", 0)[0]) == "10.9.0.2"
    assert held(database) == ["10.9.0.2", "fd00:5f:244::2"]
