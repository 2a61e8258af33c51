"""Which algorithm a service port gets, and the reason that is given."""

from __future__ import annotations

import pytest

from sixfold.balancing.choice import choose
from sixfold.model.algorithm import Algorithm
from sixfold.model.meta import ObjectMeta
from sixfold.model.seen import Seen
from sixfold.model.service import Service, ServicePort, ServiceSpec

SEEN = Seen({(80, "TCP"): 45.2, (80, "UDP"): 30.0})


def choice(annotations=None, seen=None, **port):
    one = ServicePort(port=80, **port)
    meta = ObjectMeta(name="web", namespace="shop", annotations=annotations or {})
    return choose(Service(meta, ServiceSpec(ports=[one])), one, seen or Seen())


@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_is_written_counts(algorithm):
    made = choice({"sixfold.dev/lb-algorithm": algorithm.title}, app_protocol="grpc")
    assert (made.algorithm, made.why) == (algorithm, "annotation sixfold.dev/lb-algorithm")


def test_ciliums_annotation_is_read_and_ours_comes_before_it():
    cilium = {"service.cilium.io/lb-algorithm": "maglev"}
    assert choice(cilium).why == "annotation service.cilium.io/lb-algorithm"
    both = choice({**cilium, "sixfold.dev/lb-algorithm": "least-connections"})
    assert both.algorithm is Algorithm.LEAST_CONNECTIONS


@pytest.mark.parametrize(
    "port",
    [
        {"app_protocol": "grpc"},
        {"app_protocol": "kubernetes.io/h2c"},
        {"app_protocol": "kubernetes.io/wss", "name": "http"},
        {"name": "grpc"},
        {"name": "grpc-web"},
        {"name": "redis"},
    ],
)
def test_ports_whose_connections_live_long_get_least_connections(port):
    made = choice(**port)
    assert made.algorithm is Algorithm.LEAST_CONNECTIONS
    assert "its connections live long" in made.why


@pytest.mark.parametrize(
    ("port", "why"),
    [
        ({}, "nothing says that its connections live long"),
        ({"name": "http"}, "port name http says nothing of long-lived connections"),
        ({"app_protocol": "http", "name": "grpc"}, "appProtocol http says nothing"),
        ({"name": "grpc", "protocol": "UDP"}, "nothing says"),
    ],
)
def test_everything_else_is_drawn_at_random_and_says_why(port, why):
    made = choice(**port)
    assert made.algorithm is Algorithm.RANDOM
    assert made.why.startswith(why)


def test_the_size_of_a_maglev_table_may_be_given():
    sized = {"sixfold.dev/lb-algorithm": "maglev", "sixfold.dev/lb-maglev-table-size": "251"}
    assert choice(sized).table_size == 251
    assert choice({"sixfold.dev/lb-algorithm": "maglev"}).table_size == 16381


@pytest.mark.parametrize("port", [{}, {"name": "http"}, {"name": "dns", "protocol": "UDP"}])
def test_connections_that_are_seen_to_live_long_get_least_connections(port):
    made = choice(seen=SEEN, **port)
    assert made.algorithm is Algorithm.LEAST_CONNECTIONS
    assert made.why.startswith("seen: its connections live long, ")


def test_what_is_written_and_what_a_port_says_come_before_what_is_seen():
    assert choice({"sixfold.dev/lb-algorithm": "random"}, SEEN).algorithm is Algorithm.RANDOM
    assert choice(seen=SEEN, name="grpc").why.startswith("port name grpc")
    assert choice(seen=Seen({(81, "TCP"): 45.2})).algorithm is Algorithm.RANDOM
