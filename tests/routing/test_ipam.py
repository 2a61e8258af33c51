from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sixfold.routing.ipam import AddressError, ExhaustedError, Lease, Pool

GRACE_S = 300.0
SMALL = ip_network("10.0.0.0/29")  # .0 network, .1 host, .7 broadcast: five to hand out


def test_network_host_and_broadcast_addresses_are_never_handed_out():
    pool = Pool("pod", SMALL, GRACE_S)
    given_out = {str(pool.allocate(f"a/{i}", 0).address) for i in range(5)}
    assert given_out == {f"10.0.0.{i}" for i in range(2, 7)}
    assert pool.size == 5


def test_ipv6_has_no_broadcast_address():
    pool = Pool("pod", ip_network("fd00::/125"), GRACE_S)
    assert pool.size == 6
    assert str(pool.allocate("a/b", 0).address) == "fd00::2"


def test_freed_address_rests_for_the_grace_period():
    pool = Pool("pod", ip_network("10.0.0.0/30"), GRACE_S)
    address = pool.allocate("a/b", 0).address
    pool.release(address, 100)
    with pytest.raises(ExhaustedError, match=r"the next is free in 300 s"):
        pool.allocate("a/c", 100)
    with pytest.raises(ExhaustedError) as caught:
        pool.allocate("a/c", 399.5)
    assert caught.value.retry_s == pytest.approx(0.5)
    assert pool.allocate("a/c", 400).address == address


def test_exhausted_pool_is_named_with_its_size():
    pool = Pool("service", ip_network("10.0.0.0/30"), GRACE_S)
    pool.allocate("a/b", 0)
    with pytest.raises(ExhaustedError) as caught:
        pool.allocate("a/c", 0)
    assert str(caught.value) == (
        "service pool 10.0.0.0/30: all 1 addresses are in use; "
        "delete something, or give a bigger pool"
    )
    assert caught.value.retry_s is None


def test_pool_too_small_to_hold_anything_is_exhausted():
    with pytest.raises(ExhaustedError, match="all 0 addresses"):
        Pool("pod", ip_network("10.0.0.0/31"), GRACE_S).allocate("a/b", 0)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param("10.0.1.2", "not in the pool", id="outside"),
        pytest.param("fd00::2", "not in the pool", id="other-family"),
        pytest.param("10.0.0.0", "reserved", id="network"),
        pytest.param("10.0.0.1", "reserved", id="host"),
        pytest.param("10.0.0.7", "reserved", id="broadcast"),
        pytest.param("10.0.0.2", "held by a/first", id="taken"),
        pytest.param("10.0.0.3", "was a/second's", id="resting"),
    ],
)
def test_claim_of_an_address_that_cannot_be_had_is_refused(address, message):
    pool = Pool("service", SMALL, GRACE_S)
    pool.allocate("a/first", 0)
    pool.release(pool.allocate("a/second", 0).address, 10)
    with pytest.raises(AddressError, match=message):
        pool.claim(ip_address(address), "a/third", 11)


def test_last_owner_may_claim_its_resting_address():
    pool = Pool("service", SMALL, GRACE_S)
    address = pool.allocate("a/b", 0).address
    pool.release(address, 10)
    assert pool.claim(address, "a/b", 11) == Lease("service", address, "a/b")
    assert pool.owner(address) == "a/b"


def test_claimed_address_is_passed_over_by_allocation():
    pool = Pool("pod", SMALL, GRACE_S)
    pool.claim(ip_address("10.0.0.2"), "a/b", 0)
    assert str(pool.allocate("a/c", 0).address) == "10.0.0.3"


def test_clock_that_was_set_back_does_not_prolong_the_rest():
    pool = Pool("pod", ip_network("10.0.0.0/30"), GRACE_S)
    pool.release(pool.allocate("a/b", 0).address, 1_000_000)
    with pytest.raises(ExhaustedError) as caught:
        pool.allocate("a/c", 500)
    assert caught.value.retry_s == GRACE_S


def test_leases_of_other_pools_are_left_alone():
    kept = [
        Lease("service", ip_address("10.0.0.2"), "a/b"),
        Lease("pod", ip_address("fd00::2"), "a/b"),
    ]
    pool = Pool("pod", SMALL, GRACE_S, kept)
    assert pool.held == 0
    assert list(pool.leases()) == []


class PoolLife(RuleBasedStateMachine):
    """Whatever happens, restarts included: no double use, no early reuse, no leak."""

    def __init__(self):
        super().__init__()
        self.pool = Pool("pod", SMALL, GRACE_S)
        self.now_s = 1000.0
        self.held = {}
        self.freed = {}
        self.count = 0

    def check(self, address, owner):
        assert address not in self.held
        freed_at, last_owner = self.freed.pop(address, (-GRACE_S, ""))
        assert self.now_s - freed_at >= GRACE_S or last_owner == owner
        self.held[address] = owner

    @rule()
    def allocate(self):
        self.count += 1
        owner = f"a/{self.count}"
        try:
            lease = self.pool.allocate(owner, self.now_s)
        except ExhaustedError:
            resting = [at for at, _ in self.freed.values() if self.now_s - at < GRACE_S]
            assert len(self.held) + len(resting) == self.pool.size, "an address leaked"
            return
        self.check(lease.address, owner)

    @rule(offset=st.integers(0, 7), count=st.integers(1, 5))
    def claim(self, offset, count):
        address, owner = SMALL[offset], f"a/{count}"
        try:
            self.pool.claim(address, owner, self.now_s)
        except AddressError:
            return
        if self.held.get(address) != owner:
            self.check(address, owner)

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 4))
    def release(self, index):
        address = sorted(self.held)[index % len(self.held)]
        self.freed[address] = (self.now_s, self.held.pop(address))
        assert self.pool.release(address, self.now_s) is not None

    @rule(seconds=st.sampled_from([1.0, 100.0, 299.0, 300.0]))
    def wait(self, seconds):
        self.now_s += seconds

    @rule()
    def restart(self):
        self.pool = Pool("pod", SMALL, GRACE_S, list(self.pool.leases()))

    @invariant()
    def holds_what_was_given(self):
        held = {it.address: it.owner for it in self.pool.leases() if it.freed_at is None}
        assert held == self.held


TestPoolLife = PoolLife.TestCase
TestPoolLife.settings = settings(max_examples=60, stateful_step_count=30)


@given(st.integers(0, 200))
@settings(max_examples=20)
def test_every_allocation_differs_until_the_pool_is_empty(prefix_seed):
    pool = Pool("pod", ip_network("192.0.2.0/26"), GRACE_S)
    for address in ip_network("192.0.2.0/26").hosts():
        if hash((prefix_seed, address)) % 3 == 0 and str(address) != "192.0.2.1":
            pool.claim(address, "claimed", 0)
    free = pool.size - pool.held
    assert len({pool.allocate("a", 0).address for _ in range(free)}) == free
    with pytest.raises(ExhaustedError):
        pool.allocate("a", 0)
