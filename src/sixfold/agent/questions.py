"""What pods may ask for, to the resolver; what it refused, back as flows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import ip_address

from sixfold.agent.planning import Plans
from sixfold.model.endpoint import Endpoint
from sixfold.model.flow import Flow
from sixfold.observe import Names
from sixfold.observe.questions import Question, refused
from sixfold.policy.questions import Limit
from sixfold.serve import dns_control as control


class Questions:
    """``limits`` is the same object as long as it says the same."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._made_of: tuple[object, object] = ({}, {})
        self.limits = control.Limits()

    def follow(self, limits: Mapping[str, Limit], endpoints: Mapping[str, Endpoint]) -> None:
        """Take over who may ask for what; addresses are those of endpoints."""
        made_of = limits, endpoints
        if made_of[0] is self._made_of[0] and (not limits or endpoints is self._made_of[1]):
            return
        self._made_of = made_of
        found = _message(limits, endpoints)
        if found != self.limits:
            self.limits = found

    def told(self, message: control.Refused, plans: Plans | None) -> Flow | None:
        """The flow of a question that was refused; None when it would not be any more."""
        owner = self._names.owners.get(ip_address(message.client))
        if plans is None or owner is None:
            return None
        limit = plans.limits.get(f"{owner.namespace}/{owner.pod}")
        if limit is None:
            return None
        asked = Question(
            *(message.client, message.port, message.resolver, message.protocol),
            *(message.name, message.asked, message.audit),
        )
        return refused(asked, limit.denied, self._names, time.time_ns())


def _message(limits: Mapping[str, Limit], endpoints: Mapping[str, Endpoint]) -> control.Limits:
    numbers: dict[tuple[tuple[str, ...], bool], int] = {}
    clients: dict[str, int] = {}
    for key, limit in sorted(limits.items()):
        wanted = tuple(sorted(limit.patterns)), limit.audit
        number = numbers.setdefault(wanted, len(numbers))
        clients |= {str(it): number for it in endpoints[key].addresses}
    return control.Limits(clients, tuple(control.Limit(*one) for one in numbers))
