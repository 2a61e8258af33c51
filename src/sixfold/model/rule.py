"""A rule: the smallest thing that a verdict can be traced to.

Every verdict names one: a rule of a policy, a built-in exception, or the default of the
posture. The kernel knows rules by number; the agent keeps the numbers (``rule_number``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["ingress", "egress"]


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """Where a verdict comes from.

    kind      "NetworkPolicy", "builtin" or "posture"
    namespace of the policy; "" for the others
    name      of the policy; "resolver", "node-probes"; "default-deny", "default-allow"
    direction as the workload sees it
    index     of the rule within its direction, 0-based; -1 for the default of a policy or posture
    because   for defaults: which policies isolate the workload ("ns/a,ns/b"), or the posture
    """

    kind: str
    namespace: str
    name: str
    direction: Direction
    index: int = -1
    because: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "NetworkPolicy":
                return f"{self.namespace}/{self.name} {self.direction}[{self.index}]"
            case "builtin":
                return f"builtin:{self.name}"
            case _:
                return f"{self.name} ({self.because})" if self.because else self.name
