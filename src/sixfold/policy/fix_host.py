"""The edits of policies for the host: a port or a peer more in a rule, or a rule more.

Pure. Those are CiliumClusterwideNetworkPolicies with a nodeSelector.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import msgspec

from sixfold.model.ciliumpolicy import (
    CiliumClusterwideNetworkPolicy,
    CiliumEgressRule,
    CiliumIngressRule,
    CiliumPort,
    CiliumPortRule,
    CiliumSpec,
)
from sixfold.model.identity import WORLD
from sixfold.model.meta import LabelSelector
from sixfold.policy.fix_trial import CANDIDATES_MAX, Candidate, Fixer
from sixfold.policy.languages.cilium_labels import NAMESPACE

Peers = tuple[str, list[Any]]  # field of a rule, and what it names


class HostFixer(Fixer):
    """The host: whatever selects its node is one of its policies."""

    def candidates(self) -> list[Candidate] | None:
        if (peers := self._peers()) is None:
            return None
        return [*self._edits(peers)][:CANDIDATES_MAX]

    def _edits(self, peers: Peers) -> Iterator[Candidate]:
        for _, policy in sorted(self.world.policies.items()):
            if not isinstance(policy, CiliumClusterwideNetworkPolicy):
                continue
            if policy.spec is not None:
                for rank, what, spec in self._edits_of(policy.spec, peers):
                    after = msgspec.structs.replace(policy, spec=spec)
                    yield Candidate(rank, _said(what, policy, ""), after)
            parts = policy.specs or []
            for at, one in enumerate(parts):
                for rank, what, spec in self._edits_of(one, peers):
                    specs = [*parts[:at], spec, *parts[at + 1 :]]
                    after = msgspec.structs.replace(policy, specs=specs)
                    yield Candidate(rank, _said(what, policy, f"specs[{at}]."), after)

    def _edits_of(self, spec: CiliumSpec, peers: Peers) -> Iterator[tuple[int, str, CiliumSpec]]:
        """Rank; what, with the places of policy and spec left open; the spec after it."""
        if spec.node_selector is None:
            return
        rules = list(getattr(spec, self.direction) or ())
        kind, ports = peers[0], self._ports()
        for at, rule in enumerate(rules):
            place = f"{{policy}} {{spec}}{self.direction}[{at}]"
            if rule.to_ports and ports:
                more = msgspec.structs.replace(rule, to_ports=[*rule.to_ports, *ports])
                what = f"add {self._port_text()} to the ports of {place}"
                yield 0, what, self._with(spec, [*rules[:at], more, *rules[at + 1 :]])
            if known := getattr(rule, kind):
                more = msgspec.structs.replace(rule, **{kind: [*known, *peers[1]]})
                what = f"add {self.peer_text()} to the peers of {place}"
                yield 1, what, self._with(spec, [*rules[:at], more, *rules[at + 1 :]])
        make = CiliumIngressRule if self.direction == "ingress" else CiliumEgressRule
        added = make(**{kind: peers[1]}, to_ports=ports)
        word, on = "from" if self.direction == "ingress" else "to", self._port_text()
        what = f"add a rule to {{policy}} {{spec}}{self.direction}: {word} {self.peer_text()}"
        yield 2, what + (f" on {on}" if on else ""), self._with(spec, [*rules, added])

    def _with(self, spec: CiliumSpec, rules: list[Any]) -> CiliumSpec:
        return msgspec.structs.replace(spec, **{self.direction: rules})

    def _peers(self) -> Peers | None:
        """The other side as peers of a rule; None when there is no way to name it."""
        side = "from" if self.direction == "ingress" else "to"
        if (endpoint := self.world.endpoints.get(self.peer.key)) is not None:
            found = self.selector(endpoint)
            labels = {f"k8s:{key}": value for key, value in found.match_labels.items()}
            where = {f"k8s:{NAMESPACE}": endpoint.namespace}
            return f"{side}_endpoints", [LabelSelector(where | labels, found.match_expressions)]
        if self.peer.address is not None:
            return f"{side}_cidr", [str(ip_network(self.peer.address))]
        if self.peer.identity == WORLD and not self.peer.domains:
            return f"{side}_entities", ["world"]
        return None

    def _ports(self) -> list[CiliumPortRule] | None:
        """None where ``toPorts`` cannot name the protocol: then every port it is."""
        protocol, port = self.flow[2:]
        if protocol not in ("TCP", "UDP", "SCTP"):
            return None
        return [CiliumPortRule([CiliumPort(str(port), protocol=protocol)])]  # type: ignore[arg-type]

    def _port_text(self) -> str:
        protocol, port = self.flow[2:]
        return f"{protocol}/{port}" if self._ports() else ""


def _said(what: str, policy: CiliumClusterwideNetworkPolicy, spec: str) -> str:
    return what.format(policy=f"{policy.kind} {policy.metadata.name}", spec=spec)
