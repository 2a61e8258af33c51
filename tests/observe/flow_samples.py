"""Events and names that the observe tests share."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.identity import Identity, Subject
from sixfold.model.rule import Rule
from sixfold.observe import Names, ServiceName
from sixfold.observe.names import IPAddress

OFFSET_NS = 1_763_884_800_000_000_000  # 2025-11-23T08:00:00Z
WEB_RULE, DB_RULE, DENY_RULE = 1, 2, 3


class Event(NamedTuple):
    """A decoded event: web connects to db, both sides allow."""

    time_ns: int = 123_456_789
    type: int = 1
    reason: int = 0
    protocol: int = 6
    direction: int = 0
    tcp_flags: int = 0x02
    icmp_type: int = 0
    icmp_code: int = 0
    is_reply: int = 0
    source: IPAddress = ip_address("10.244.0.4")
    destination: IPAddress = ip_address("10.244.0.5")
    source_port: int = 41234
    destination_port: int = 6379
    source_identity: int = 1234
    destination_identity: int = 1300
    rule: tuple[int, int] = (DB_RULE, WEB_RULE)
    service: int = 7
    ifindex: int = 12
    length: int = 74
    service_port: int = 6379
    answer: int = 0
    dial: int = 0
    transport: int = 0


def endpoint(pod: str, number: int, identity: int, address: str, ifindex: int = 0) -> Endpoint:
    app = pod.partition("-")[0]
    return Endpoint(
        namespace="shop",
        pod=pod,
        workload=f"Deployment/{app}",
        subject=Subject("shop", "default", (("app", app),), ()),
        id=EndpointId(number),
        identity=Identity(identity),
        ipv4=ip_address(address),
        ifindex=ifindex,
    )


def sample_names() -> Names:
    names = Names(node="basecamp")
    names.update(
        [
            endpoint("web-1", 21, 1234, "10.244.0.4", 12),
            endpoint("db-0", 22, 1300, "10.244.0.5", 14),
        ]
    )
    names.rules = {
        WEB_RULE: Rule("NetworkPolicy", "shop", "web-egress", "egress", 1),
        DB_RULE: Rule("NetworkPolicy", "shop", "allow-web", "ingress", 0),
        DENY_RULE: Rule("posture", "", "default-deny", "ingress", because="shop/allow-web"),
    }
    names.services = {7: ServiceName("shop", "db", 6379)}
    return names
