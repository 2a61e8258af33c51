"""A member of the mesh: one pod as the proxy sees it.

Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.mesh import TUNNEL_PORT
from sixfold.model.place import place_text
from sixfold.model.spiffe import workload_id


class Member(NamedTuple):
    """What its listeners and cluster are made of.

    netns  a path that names this pod's namespace and never another: the proxy keeps the socket
           of a listener whose address, path included, it has seen before
    """

    pod: str  # namespace/name
    id: str  # SPIFFE ID
    netns: str
    addresses: tuple[IPAddress, ...]


def member_of(endpoint: Endpoint, trust_domain: str, netns: str) -> Member:
    subject = endpoint.subject
    return Member(
        endpoint.key,
        str(workload_id(trust_domain, subject.namespace, subject.service_account)),
        netns,
        endpoint.addresses,
    )


def authority(address: IPAddress, port: int | str) -> str:
    """``:authority`` of a tunnel to a port, as Envoy writes an address."""
    return place_text(address, port)


def tunnel(address: IPAddress) -> str:
    return authority(address, TUNNEL_PORT)
