from ipaddress import ip_address, ip_network

from flow_samples import endpoint, sample_names

from sixfold.model.identity import HOST, Identity, Subject
from sixfold.observe import cidr_labels, identity_labels


def test_labels_of_an_identity_are_spelled_as_cilium_spells_them():
    subject = Subject("shop", "seller", (("app", "web"), ("bare", "")), ())
    assert identity_labels(subject) == (
        "k8s:app=web",
        "k8s:bare",
        "k8s:io.cilium.k8s.policy.serviceaccount=seller",
        "k8s:io.kubernetes.pod.namespace=shop",
    )


def test_a_block_is_labelled_as_block_and_as_world():
    assert cidr_labels(ip_network("192.0.2.0/24")) == ("cidr:192.0.2.0/24", "reserved:world")


def test_reserved_identities_name_themselves_and_unknown_ones_stay_bare():
    names = sample_names()
    assert names.labels_of(HOST) == ("reserved:host",)
    assert names.labels_of(Identity(9999)) == ()


def test_a_pod_that_is_gone_keeps_its_name_until_the_address_is_used_again():
    names = sample_names()
    names.update([])
    assert names.owners[ip_address("10.244.0.4")].pod == "web-1"
    names.update([endpoint("api-1", 30, 1400, "10.244.0.4")])
    assert names.owners[ip_address("10.244.0.4")].pod == "api-1"
