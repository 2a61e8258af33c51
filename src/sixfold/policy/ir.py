"""The one form that every policy language is compiled to, and that everything else reads.

Pure values. A *policy* applies *lines* to a subject; a line is one rule of one direction, with a
verdict. Selectors are still selectors here, ports still ranges and names: what was written,
spelled the same whatever it was written in.

Order of evaluation, per direction; the first that says allow or deny decides:
  1. Admin tier: policies by priority, then name; their lines in order; the first that matches.
     PASS leaves the tier
  2. NetworkPolicy tier: one deny beats every allow; one allow is enough; then, if any policy
     isolates the workload in this direction, denied
  3. Baseline tier: as Admin
  4. the posture; the host, where no policy isolates it, is open in every posture
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from sixfold.model.clusternetworkpolicy import PRIORITY_MAX
from sixfold.model.datapath import DENY
from sixfold.model.identity import Identity
from sixfold.model.meta import LabelSelector
from sixfold.model.policy import IPBlock
from sixfold.model.rule import Rule

EVERYTHING = LabelSelector()
# Stands for a pod's service account among its labels: no label may be called so.
SERVICE_ACCOUNT_LABEL = ":serviceaccount"


class Tier(IntEnum):
    ADMIN = 0
    NETWORK_POLICY = 1
    BASELINE = 2


class Pods(msgspec.Struct, frozen=True):
    """Pods by labels, of one namespace, or of namespaces by labels.

    unsaid  what the author would have had to write to mean other namespaces than the policy's
    """

    namespace: str | None = None
    namespaces: LabelSelector = msgspec.field(default_factory=lambda: EVERYTHING)
    pods: LabelSelector = msgspec.field(default_factory=lambda: EVERYTHING)
    unsaid: str = ""

    @property
    def everyone(self) -> bool:
        """Whether every pod there is, or will be, is meant."""
        return self.namespace is None and self.namespaces == self.pods == EVERYTHING


class Nodes(msgspec.Struct, frozen=True):
    """The host itself, if its node has these labels. Only as a subject."""

    labels: LabelSelector


class Addresses(msgspec.Struct, frozen=True):
    """A block less its exceptions. ``outside``: addresses of pods and of the host are not meant."""

    block: IPBlock
    outside: bool = False


class Reserved(msgspec.Struct, frozen=True):
    """One of the reserved identities, and what the author called it."""

    identity: Identity
    name: str


class DomainName(msgspec.Struct, frozen=True):
    """Addresses of the world that names have resolved to; a pattern as in ``model/domain``."""

    pattern: str


Peer = Pods | Addresses | Reserved | DomainName


class Port(msgspec.Struct, frozen=True):
    """A range of ports; a name, of the destination's; or every port, when ``first`` is None.

    protocol  "TCP", "UDP", "SCTP", "ANY" of those, "ICMP" or "ICMPv6": then ports are types
    """

    protocol: str
    first: int | str | None = None
    last: int | None = None

    def __str__(self) -> str:
        if self.first is None:
            return f"every {self.protocol} port"
        return f"{self.protocol}/{self.first}" + (f"-{self.last}" if self.last is not None else "")


class Request(msgspec.Struct, frozen=True):
    """An HTTP request, by regular expressions that match the whole text; "" is any.

    headers  name, lower case, and what it must be; None: that it is there
    """

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[tuple[str, str | None], ...] = ()


class Outward(msgspec.Struct, frozen=True):
    """What leaves for the world under this line, leaves by the proxy only.

    servers  patterns: a handshake must name one of them; none: nothing of the pod's own passes
    carried  the host for whose clients the proxy begins TLS
    first    it counts where another line allows the same without a word; else that one does
    """

    servers: tuple[str, ...] = ()
    carried: str = ""
    first: bool = False


class Line(msgspec.Struct, frozen=True):
    """One rule. ``peers`` and ``ports``: None is any, empty is none.

    requests  it allows these, and nothing that is none of HTTP; None: whatever is sent. Judged by
              the proxy, so that its peers are pods only: nobody else comes through it
    names     its peer is the resolver, which may be asked for these patterns only; None: for all
    """

    rule: Rule
    direction: int
    verdict: int
    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None
    requests: tuple[Request, ...] | None = None
    names: tuple[str, ...] | None = None
    outward: Outward | None = None


class Policy(msgspec.Struct, frozen=True):
    """One subject and the lines for it; an object may hold several.

    key       unique; ``World.policies``' key, with a suffix for further parts of one object
    title     how a default deny names it
    isolates  directions in which the subject is denied what no line allows
    priority  of ordered tiers, lower first
    watches   fields of ``World`` that it was compiled from besides its object
    audit     neither its isolation nor its denials are in force: they are told
    """

    key: str
    title: str
    subject: Pods | Nodes
    lines: tuple[Line, ...]
    isolates: frozenset[int] = frozenset()
    tier: Tier = Tier.NETWORK_POLICY
    priority: int = 0
    watches: frozenset[str] = frozenset()
    audit: bool = False

    @property
    def about_requests(self) -> bool:
        return any(line.requests is not None for line in self.lines)

    @property
    def about_names(self) -> bool:
        return any(line.names is not None for line in self.lines)

    @property
    def about_outside(self) -> bool:
        return any(line.outward is not None for line in self.lines)


# --- precedence in the kernel's tables: 30 bits, the highest decides -----------------------------

POSTURE = 0
_TIES, _LINES = 11, 7  # bits: policies of one priority, lines of one policy
NETWORK_POLICY = 1 << 28
SEEN, CARRIED = NETWORK_POLICY - 1, NETWORK_POLICY + 1  # bpf/sixfold.h: by the proxy only
BY_PROXY = (SEEN, CARRIED)
DENIED = NETWORK_POLICY + 2
BUILT_IN = 1 << 29


def precedence(policy: Policy, tie: int, line: int) -> int:
    """Precedence of a line; ``tie`` counts the policies of equal priority that come first."""
    if policy.tier is Tier.NETWORK_POLICY:
        if policy.lines[line].verdict == DENY:
            return DENIED
        outward = policy.lines[line].outward
        return NETWORK_POLICY if outward is None else CARRIED if outward.first else SEEN
    before = min(tie, (1 << _TIES) - 1)
    at = sum(1 for one in policy.lines[:line] if one.direction == policy.lines[line].direction)
    later = ((PRIORITY_MAX - policy.priority) << _TIES) + (1 << _TIES) - 1 - before
    return (later << _LINES) + (1 << _LINES) - at
