"""The cases of policy tests as worlds whose pods are in the mesh."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from tests.policy import worlds


def meshed(case, identities=None):
    """As ``worlds.world``, but every pod is a member, whatever its address."""
    here = worlds.world(case, identities)
    endpoints = {
        key: replace(one, netns=f"/run/netns/{key}", netns_cookie=one.ifindex)
        for key, one in here.endpoints.items()
    }
    anywhere = {"pod_ipv4": IPv4Network("0.0.0.0/0"), "pod_ipv6": IPv6Network("::/0")}
    config = replace(here.config, mtls="strict", **anywhere)
    return replace(here, endpoints=endpoints, config=config)


def netns_of(endpoint):
    return f"/run/netns/{endpoint.netns_cookie}"
