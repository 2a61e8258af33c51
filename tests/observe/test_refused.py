from ipaddress import IPv4Address

from sixfold.model.flow import Verdict
from sixfold.model.identity import HOST, Identity
from sixfold.model.reason import DropReason
from sixfold.model.refusal import Refusal
from sixfold.observe import Names, Owner, compact, to_hubble
from sixfold.observe.refused import kind_of, refused_call

NODE, POD = IPv4Address("10.244.0.1"), IPv4Address("10.244.0.5")
NAMES = Names(owners={POD: Owner("shop", "web-0", "StatefulSet/web", 7, Identity(300))}, node="n")
MOUNT = Refusal(5, 77, 4711, 1000, 21, 165, "mount", "/mnt", 3)


def test_a_refusal_names_the_pod_what_it_runs_the_call_and_what_it_lacks():
    flow = refused_call(NAMES, "shop/web-0", NODE, MOUNT, "/usr/bin/mount", 10)
    assert (flow.time_ns, flow.verdict) == (15, Verdict.DROPPED)
    assert flow.drop_reason is DropReason.CAPABILITY_DENIED
    assert (flow.source.name, flow.source.address) == ("shop/web-0", POD)
    assert compact(flow).endswith(
        "shop/web-0 (ID:300) -> 10.244.0.1 (host) drop:capability-denied DROPPED (system call "
        "mount /mnt) lacks CAP_SYS_ADMIN process /usr/bin/mount (4711) uid 1000 and 3 before it"
    )
    ours = to_hubble(flow)["sixfold"]
    assert (ours["drop_reason"], ours["system_call"]) == ("CAPABILITY_DENIED", "mount")
    assert ours["untold"] == "3"


def test_who_has_the_hosts_network_is_named_at_the_nodes_address():
    flow = refused_call(NAMES, "shop/agent", NODE, MOUNT, "", 0)
    assert (flow.source.name, flow.source.address) == ("shop/agent", NODE)
    assert flow.extra["process"] == "mount (4711)"


def test_it_is_counted_as_a_drop_of_its_pod():
    flow = refused_call(NAMES, "shop/web-0", NODE, MOUNT, "", 0)
    assert kind_of(flow) == (2, DropReason.CAPABILITY_DENIED, 300, HOST)
