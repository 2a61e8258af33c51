"""What is learned is open exactly as long as it should be, and never more than fits."""

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.discovery.learned import RECHECK_S, SLACK_S, Learned, Pair, not_of_the_world
from sixfold.model.config import Config

A, B, C = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
NEVER, ALWAYS = (lambda pair: False), (lambda pair: True)
ADDRESSES = st.sampled_from([A, B, C, ip_address("2001:db8::1")])
TTLS = st.dictionaries(ADDRESSES, st.integers(0, 50), max_size=4)
STEPS = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from(["a.b", "c.d", "e.f"]), TTLS, st.sets(ADDRESSES)),
    max_size=25,
)


def test_an_address_lives_as_long_as_its_ttl_and_a_moment():
    learned = Learned()
    assert learned.learn("a.b", {A: 30}, 100).fresh == (Pair("a.b", A),)
    assert learned.names == {"a.b": {A}}
    assert learned.next_deadline() == 130 + SLACK_S
    assert learned.expire(130, NEVER) == ()
    assert learned.expire(130 + SLACK_S, NEVER) == (Pair("a.b", A),)
    assert learned.names == {}
    assert learned.next_deadline() is None


def test_an_open_connection_holds_it_until_it_ends():
    learned = Learned()
    learned.learn("a.b", {A: 10, B: 10}, 0)
    end_s = 10 + SLACK_S
    assert learned.expire(end_s, lambda pair: pair.address == A) == (Pair("a.b", B),)
    assert learned.next_deadline() == end_s + RECHECK_S
    assert [life.held for _, life in learned] == [True]
    assert learned.expire(end_s + RECHECK_S, ALWAYS) == ()
    assert learned.expire(end_s + 2 * RECHECK_S, NEVER) == (Pair("a.b", A),)


def test_a_new_answer_gives_it_a_new_life_and_never_shortens_it():
    learned = Learned()
    learned.learn("a.b", {A: 100}, 0)
    assert learned.learn("a.b", {A: 5}, 50).renewed == ()
    assert learned.learn("a.b", {A: 60}, 50).renewed == (Pair("a.b", A),)
    assert learned.expires_s(Pair("a.b", A)) == 110 + SLACK_S


def test_what_does_not_fit_is_refused_and_closes_nothing():
    learned = Learned(addresses_max=2, pairs_max=3)
    lesson = learned.learn("a.b", {A: 9, B: 9, C: 9}, 0)
    assert [address for address, _ in lesson.refused] == [C]
    assert learned.learn("c.d", {A: 9}, 0).refused == ()
    (refused,) = learned.learn("e.f", {A: 9}, 0).refused
    assert "3 addresses of names are open already" in refused[1]
    assert len(learned) == 3
    learned.expire(9 + SLACK_S, NEVER)
    assert learned.learn("e.f", {A: 9}, 20).refused == ()


def test_what_was_kept_is_known_again():
    learned = Learned({Pair("a.b", A): 50.0})
    assert learned.names == {"a.b": {A}}
    assert learned.next_deadline() == 50.0


def test_names_that_nobody_asks_about_any_more_go():
    learned = Learned()
    learned.learn("a.b", {A: 9}, 0)
    learned.learn("c.d", {A: 9, B: 9}, 0)
    assert learned.retain(lambda name: name == "a.b") == (Pair("c.d", A), Pair("c.d", B))
    assert learned.names == {"a.b": {A}}


@settings(max_examples=200)
@given(STEPS)
def test_it_equals_a_list_of_promises(steps):
    """The reference keeps every promise ever made, and looks them all up."""
    learned, now_s = Learned(addresses_max=3, pairs_max=7), 0.0
    promises: dict[Pair, float] = {}
    for passed_s, name, ttls, used in steps:
        now_s += passed_s
        gone = learned.expire(now_s, lambda pair, used=used: pair.address in used)
        for pair in gone:
            assert promises.pop(pair) <= now_s
            assert pair.address not in used
        lesson = learned.learn(name, ttls, now_s)
        refused = {address for address, _ in lesson.refused}
        for address, ttl_s in ttls.items():
            if address not in refused:
                pair = Pair(name, address)
                promises[pair] = max(promises.get(pair, 0), now_s + ttl_s + SLACK_S)
        assert {pair for pair, _ in learned} == set(promises)
        assert {
            p for name, them in learned.names.items() for p in {Pair(name, a) for a in them}
        } == (set(promises))
        assert len(learned) == len(promises) <= 7
        assert all(learned.expires_s(pair) == at_s for pair, at_s in promises.items())
        if promises:
            assert learned.next_deadline() <= max(min(promises.values()), now_s + RECHECK_S)


@pytest.mark.parametrize(
    "address",
    [
        *("10.244.3.4", "fd00:5f:244::9", "10.96.0.1", "169.254.20.10", "127.0.0.1"),
        *("169.254.1.1", "fe80::1", "::1", "0.0.0.0", "224.0.0.1", "ff02::1", "192.0.2.99"),
        *("::ffff:192.0.2.1", "255.255.255.255", "::"),
    ],
)
def test_an_answer_cannot_say_who_a_pod_a_service_or_the_host_is(address):
    assert not_of_the_world(ip_address(address), Config(), [ip_address("192.0.2.99")])


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "10.0.0.1", "192.168.1.1"])
def test_other_addresses_may_be_learned(address):
    assert not not_of_the_world(ip_address(address), Config(), [ip_address("192.0.2.99")])
