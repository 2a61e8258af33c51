"""``python -m bench [PART…]``: measure, print, write ``bench/results/``.

    traffic    stream, request/response and connect rate beside plain veth, routing, nftables
    programs   ns per packet of each BPF program
    policy     compile and change at the scale of peers; lookups by number of rules
    dns        questions answered in the kernel beside knot, nsd, unbound and dnsmasq
    acceleration
               pods whose data goes from socket to socket, beside packets and plain veth
    mesh       mTLS from pod to pod, beside HAProxy, nginx and a bare Envoy at both ends; changes,
               memory, a killed proxy
    balancing  connects and round trips by number of services, beside nftables, iptables,
               HAProxy and nginx; loading; one endpoint's change; spread by algorithm
    failures   pods killed under load: failed requests, beside HAProxy with health checks
    attach     time to attach a pod
    revocation a rule, an authority, an identity taken away, until the last byte
    identities certificates and tokens by the Workload API; a thousand renewed at once
    workloads  an agent with 1,000 pods: policy change, audit, memory

All parts by default, in under a quarter of an hour. Needs root; Ctrl-C leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from bench import (
    acceleration,
    attach,
    balancing,
    dns,
    failures,
    identities,
    mesh,
    policy,
    programs,
    report,
    revocation,
    traffic,
    workloads,
)
from bench.lab import Lab, LabError, laboratory
from bench.peers import why_no_nftables
from sixfold.errors import SixfoldError

LIMIT_S = 850  # of a whole run, clean-up included in the quarter of an hour

Part = Callable[[Lab, random.Random], Any]
PARTS: dict[str, Part] = {
    "traffic": traffic.measure,
    "programs": lambda lab, _: programs.measure(lab),
    "policy": policy.measure,
    "dns": dns.measure,
    "acceleration": acceleration.measure,
    "mesh": mesh.measure,
    "balancing": balancing.measure,
    "failures": failures.measure,
    "attach": lambda lab, _: attach.measure(lab),
    "identities": lambda lab, _: identities.measure(lab),
    "revocation": lambda lab, _: revocation.measure(lab),
    "workloads": lambda lab, _: workloads.measure(lab),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", default=[*PARTS], choices=[*PARTS, [*PARTS]], metavar="PART"
    )
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF)
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root: namespaces, BPF, nftables; sudo make bench", file=sys.stderr)
        return 1
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _stop)
    signal.alarm(LIMIT_S)
    why_no_nftables()  # installs it; the heading has its version
    machine = report.machine(given.seed)
    print(report.heading(machine), flush=True)
    try:
        found = {name: _measure(name, given.seed) for name in given.parts}
    except (LabError, SixfoldError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped; everything is removed", file=sys.stderr)
        return 130
    signal.alarm(0)
    if found.keys() == PARTS.keys():
        report.write(machine, found)
    return 0


def _measure(name: str, seed: int) -> Any:
    """One part, in a laboratory of its own; its table is printed when it is done."""
    start = time.monotonic()
    with laboratory() as lab:
        found = PARTS[name](lab, random.Random(seed))
    print(report.section(name, found), flush=True)
    print(f"({time.monotonic() - start:.0f} s)\n", flush=True)
    return found


def _stop(number: int, _: FrameType | None) -> None:
    """Unwinds through every clean-up, as Ctrl-C does."""
    if number == signal.SIGALRM:
        raise LabError(f"not done within {LIMIT_S} s: the machine is too busy to measure on")
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
