"""A rule: the smallest thing that a verdict can be traced to.

Every verdict names one: a rule of a policy, a built-in exception, or the default of the
posture. The kernel knows rules by number; the agent keeps the numbers (``rule_number``).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Direction = Literal["ingress", "egress"]


class Rule(msgspec.Struct, frozen=True, order=True, cache_hash=True, gc=False):
    """Where a verdict comes from.

    kind      kind of the policy object, "builtin" or "posture"
    namespace of the policy; "" for the others
    name      of the policy; "resolver", "node-probes"; "default-deny", "default-allow"
    direction as the workload sees it
    index     of the rule within its section, 0-based; -1 for the default of a policy or posture
    because   for defaults: which policies isolate the workload ("ns/a,ns/b"), or the posture
    section   list of the policy that holds the rule, when that is not its direction:
              "ingressDeny", "specs[1].egress"
    tier      of a ClusterNetworkPolicy: "admin", "baseline"
    log       what a Cilium policy wants to be said with its verdicts
    """

    kind: str
    namespace: str
    name: str
    direction: Direction
    index: int = -1
    because: str = ""
    section: str = ""
    tier: str = ""
    log: str = ""

    def __str__(self) -> str:
        if self.kind == "builtin":
            return f"builtin:{self.name}"
        if self.index < 0:
            return f"{self.name} ({self.because})" if self.because else self.name
        owner = "/".join(part for part in (self.tier, self.namespace, self.name) if part)
        text = f"{owner} {self.place}"
        return text if self.kind == "NetworkPolicy" else f"{self.kind} {text}"

    @property
    def place(self) -> str:
        """Where in its policy: ``ingress[0]``."""
        return f"{self.section or self.direction}[{self.index}]"
