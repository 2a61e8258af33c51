"""Random worlds in all policy languages: the kernel judges as the compiler's own reading does."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from crafted import ICMP, ICMPV6, SHOT, TCP, Kernel, ethernet, ipv4, ipv6, tcp, udp
from tests.policy import languages
from tests.policy.worlds import parties, world

from sixfold.host.datapath import KernelDatapath
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.model.datapath import EGRESS, INGRESS, PROTOCOL_NUMBERS, Datapath
from sixfold.model.endpoint import HOST_ENDPOINT
from sixfold.model.world import World
from sixfold.policy.decide import decide
from sixfold.policy.plan import PolicyPlan, compile_policies
from sixfold.routing.plan import plan_routing

pytestmark = pytest.mark.root

CASES, FLOWS = 40, 40
PODS = 9
HOSTS = tuple(map(ip_address, ("192.168.0.1", "2001:db8::1")))  # as ``cases.flows`` has them


@pytest.fixture(scope="module")
def interfaces(datapath: KernelDatapath) -> list[int]:
    """One for each pod: test runs want interfaces that exist."""
    names = [f"sfp{number}" for number in range(PODS + PODS % 2)]
    for one, other in zip(names[::2], names[1::2], strict=True):
        command = ["ip", "link", "add", one, "type", "veth", "peer", "name", other]
        subprocess.run(command, check=True)
    return [socket.if_nametoindex(name) for name in names]


def loaded(here: World, plan: PolicyPlan) -> Datapath:
    routing = plan_routing(here, plan.covering_cidr, HOSTS, plan.cidrs, plan.domains)
    tables = {endpoint.id: plan.tables[key] for key, endpoint in here.endpoints.items()}
    if plan.host is not None:
        tables[HOST_ENDPOINT] = plan.host
    return Datapath(endpoints=routing.endpoints, ipcache=routing.ipcache, policies=tables)


def packet(source: str, destination: str, protocol: int, port: int) -> bytes:
    if protocol in (ICMP, ICMPV6):
        payload = struct.pack("!BBHHH", port, 0, 0, 7, 1)
    elif protocol == TCP:
        payload = tcp(destination=port)
    else:  # UDP, and SCTP, whose common header begins with the ports too
        payload = udp(bytes(4), destination=port)
    ends = ip_address(source), ip_address(destination)
    if isinstance(ends[0], IPv4Address):
        return ethernet(0x0800, ipv4(payload, protocol, *ends))
    return ethernet(0x86DD, ipv6(payload, protocol, *ends))


def judged(kernel: Kernel, here: World, sides: list[Mapping[str, Any]], frame: bytes) -> bool:
    """From a pod by its own interface; from elsewhere by that of the pod it is for; of the host
    and the world by an uplink."""
    source, destination = sides
    if "pod" in source:
        return kernel.send(frame, here.endpoints[source["pod"]].ifindex) != SHOT
    if "pod" not in destination:
        uplink = "to_uplink" if source.get("host") else "from_uplink"
        return kernel.run(uplink, frame, 1).verdict != SHOT
    return kernel.receive(frame, here.endpoints[destination["pod"]].ifindex) != SHOT


def test_kernel_and_compiler_agree(datapath: KernelDatapath, interfaces: list[int]) -> None:
    seed = int(os.environ.get("SIXFOLD_FUZZ_SEED", random.randrange(2**31)))
    print(f"SIXFOLD_FUZZ_SEED={seed}")
    pick, kernel = random.Random(seed), Kernel(datapath)
    for number in range(CASES):
        posture = pick.choice(("kubernetes", "zero-trust"))
        case = languages.case(seed + number, posture)
        here = world(case)
        for key, ifindex in zip(list(here.endpoints), interfaces, strict=False):
            here.endpoints[key] = replace(here.endpoints[key], ifindex=ifindex)  # type: ignore[index]
        plan = compile_policies(here)
        datapath.apply(loaded(here, plan))
        for source, destination, name, port, version in languages.flows(case, pick, FLOWS):
            sides = [source, destination]
            ends = [ip_address(side["ip"]) for side in sides]
            judged_at_all = [side for side in sides if "pod" in side or side.get("host")]
            if source == destination or not judged_at_all or all(s.get("host") for s in sides):
                continue
            if not any("pod" in side for side in sides):
                if plan.host is None or {RESOLVER_IPV4, RESOLVER_IPV6} & set(ends):
                    continue  # nobody looks; or it never leaves the host
                if port == 130 or (name == "ICMPv6" and port in range(130, 138)):
                    continue
            if ends[0] in (RESOLVER_IPV4, RESOLVER_IPV6) or port == 130:
                continue  # it only answers; 130 is multicast's
            protocol = PROTOCOL_NUMBERS[name]
            told = [parties(plan, here, side, version) for side in sides]
            wanted = decide(plan, told[0], told[1], protocol, port)
            connections = datapath.maps["conntrack"]
            connections.delete([key for key, _ in connections.items()])
            kernel.events()
            frame = packet(source["ip"], destination["ip"], protocol, port)
            flow = (seed + number, posture, source, destination, name, port)
            assert judged(kernel, here, sides, frame) == wanted.allow, flow
            (event,) = kernel.events()
            denied = wanted.egress is not None and not wanted.egress.allow
            for direction, decision in ((EGRESS, wanted.egress), (INGRESS, wanted.ingress)):
                if decision is not None and not (denied and direction == INGRESS):
                    assert event.rule[direction] == decision.rule, flow
