"""Who was given no identity: told from where the process is."""

from ipaddress import ip_address

from sixfold.model.flow import Verdict
from sixfold.model.identity import HOST, Identity
from sixfold.observe import Names, Owner, compact
from sixfold.observe.refused import no_identity

NODE, POD = ip_address("10.244.0.1"), ip_address("10.244.0.7")


def names():
    return Names(owners={POD: Owner("shop", "web-0", "Deployment/web", 3, Identity(300))})


def test_a_process_in_a_pods_network_is_told_from_the_pod():
    flow = no_identity(names(), POD, NODE, "process 7 (uid 0) is of no pod", 0)
    assert (flow.source.name, flow.destination.identity) == ("shop/web-0", HOST)
    assert flow.verdict is Verdict.ERROR
    assert compact(flow).endswith("mesh identity: process 7 (uid 0) is of no pod")


def test_another_is_told_from_the_host():
    for source in (None, ip_address("10.244.0.9")):
        flow = no_identity(names(), source, NODE, "process 7 (uid 0) is of no pod", 0)
        assert (flow.source.identity, flow.source.address) == (HOST, NODE)
