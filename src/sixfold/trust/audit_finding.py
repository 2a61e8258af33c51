"""One thing that an audit found; what an audit may look at; what a rule is.

A rule is a question with a number (facts of zero trust, Z01 to Z25; Z26 is the posture's), asked
of the evidence: the plans that are in force, and, live, what was seen of the running system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sixfold.policy.reach_parties import View

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
Path = tuple[str | int, ...]


class Object(NamedTuple):
    """Whom a finding is about; a policy's ``kind`` may be any of the policy kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.namespace, self.kind, self.name) if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, how one can tell, and what to do about it: a command, or YAML."""

    rule: str
    severity: Severity
    about: Object
    message: str
    evidence: str
    fix: str
    path: Path = ()  # within the object


@dataclass(frozen=True, slots=True)
class PortSeen:
    """One service port as it is balanced now.

    connections  live ones of each active backend over its weight
    lifetime_s   how long they last on average, as far as known; 0 = not
    """

    service: str
    port: int
    protocol: str
    algorithm: str
    why: str
    lifetime_s: float
    connections: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DialsSeen:
    """How a pod has dialled addresses of a service itself; see ``host/freshness.py``."""

    pod: str
    service: str
    watched_s: float
    longest_s: float
    connections: int
    retired: int
    expired: int
    late: int
    unasked: int
    redirected: int = 0
    address: str = ""
    ttl_s: int = 5


@dataclass(frozen=True, slots=True)
class SvidSeen:
    """An X.509-SVID that is in use.

    followed  its workload has a stream open, and is to be given the next one in time
    overdue_s  for how long the next one should have been given; 0: it is not due yet
    """

    pod: str
    certificate: str  # PEM
    followed: bool = False
    overdue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PolicySeen:
    """A policy object, and how often its rules decided, by their places in it."""

    age_s: float
    hits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectionSeen:
    """An open connection; ``owner`` of the host's socket, where that was asked."""

    source: str  # "namespace/pod", or what else is at that address
    destination: str
    port: int
    protocol: str
    rule: str = ""  # that denies it today
    owner: str = ""


@dataclass(frozen=True, slots=True)
class PlaintextSeen:
    """Connections between two workloads that the kernel let in outside of any tunnel."""

    client: str  # "namespace/pod"
    server: str
    port: int
    protocol: str
    connections: int


@dataclass(frozen=True, slots=True)
class PairSeen:
    """Connections between two workloads, however they went.

    client   "namespace/pod"; of another trust domain its SPIFFE ID
    server   likewise of ours; who is dialled abroad is dialled by a Gateway
    service  that was dialled; "" if an address was
    rules    that let them: of egress, of ingress; "" of a number that is not known any more, or
             of what another trust domain decides
    """

    client: str
    server: str
    port: int
    protocol: str
    connections: int
    mtls: bool
    service: str = ""
    rules: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class PermissiveSeen:
    """A port that takes plaintext too; port 0: all that have no mode of their own.

    for_s   how long it has been so, at least
    idle_s  since the last connection in plaintext; None: there was none
    """

    pod: str
    port: int
    for_s: float
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class UnguardedSeen:
    """A port about whose requests a policy is, and what the kernel does with others than HTTP."""

    pod: str
    port: int
    mode: str


@dataclass(frozen=True, slots=True)
class BundleSeen:
    """What is known of another trust domain.

    roots    that verify its identities
    heard_s  when its endpoint was last heard, UTC; 0: not since this start
    hint_s   how soon it wants to be asked again
    """

    trust_domain: str
    url: str
    roots: int
    heard_s: float
    hint_s: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class UnfitSeen:
    """A process of a workload that its identity is not for, and what it lacks for that."""

    pod: str
    process: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StraySeen:
    """A process in a workload's network that is not of its control group."""

    pod: str
    process: str
    cgroup: str


@dataclass(frozen=True, slots=True)
class IntrusionSeen:
    """What a stranger tried from a pod, and got an answer to.

    tried  "plaintext": a packet past the proxy; "tunnel": the tunnel port; "door": one of ours
    """

    tried: Literal["plaintext", "tunnel", "door"]
    stranger: str  # "namespace/pod"
    target: str  # "namespace/pod", or a process
    place: str  # address and port
    looked_into: bool = False  # a policy is about requests to it


@dataclass(frozen=True, slots=True)
class DoorSeen:
    """A socket that one of our processes listens on; ``meant``: where we say that it is."""

    process: str
    place: str  # "127.0.0.1:8500/TCP", or a path
    meant: bool
    mode: int = 0  # of a path


@dataclass(frozen=True, slots=True)
class Live:
    """What only a running agent knows.

    policies  by key, as in ``World.policies``
    denied    open, and against the policy that is in force
    by_host   opened by processes of the host towards workloads, the agent's own left out
    """

    ports: tuple[PortSeen, ...] = ()
    dials: tuple[DialsSeen, ...] = ()
    svids: tuple[SvidSeen, ...] = ()
    policies: Mapping[str, PolicySeen] = field(default_factory=dict)
    denied: tuple[ConnectionSeen, ...] = ()
    by_host: tuple[ConnectionSeen, ...] = ()
    doors: tuple[DoorSeen, ...] = ()
    bundles: tuple[BundleSeen, ...] = ()
    plaintext: tuple[PlaintextSeen, ...] = ()
    pairs: tuple[PairSeen, ...] = ()
    from_abroad: tuple[PairSeen, ...] = ()  # likewise, whose clients are of other trust domains
    permissive: tuple[PermissiveSeen, ...] = ()
    unguarded: tuple[UnguardedSeen, ...] = ()
    strays: tuple[StraySeen, ...] = ()
    unfit: tuple[UnfitSeen, ...] = ()
    intrusions: tuple[IntrusionSeen, ...] = ()
    now_s: float = 0.0
    flows_lost: int = 0
    hits_lost: int = 0
    generation: int = 0
    applied: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``live`` is None offline; ``unused_s``: for how long a rule may be without use."""

    view: View
    live: Live | None = None
    unused_s: float = 7 * 86400


@dataclass(frozen=True, slots=True)
class Rule:
    """``offline``: whether manifests alone can answer it; ``anti_pattern``: what it is known as."""

    number: str
    severity: Severity
    title: str
    check: Callable[[Evidence], Iterator[Finding]]
    offline: bool = True
    anti_pattern: str = ""
