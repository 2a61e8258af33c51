"""The ledger: who holds which number and which address, on disk before it is in the kernel."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import msgspec

from sixfold.model.datapath import IPNetwork
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import (
    FIRST_ALLOCATED,
    FIRST_CIDR,
    LAST_ALLOCATED,
    Identity,
    Subject,
)
from sixfold.model.rule import Rule
from sixfold.store import Database, Numbers


def _key(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class Ledger:
    """Numbers by meaning. Lookups of known values do not touch the disk."""

    def __init__(self, database: Database) -> None:
        self._identities = Numbers(database, "identity", FIRST_ALLOCATED, LAST_ALLOCATED)
        self._rules = Numbers(database, "rule", 1, 2**32 - 1)
        self._services = Numbers(database, "service", 1, 2**32 - 1)
        self._cidrs = Numbers(database, "cidr", FIRST_CIDR, (2 << 24) - 1)
        self._endpoints = Numbers(database, "endpoint", 1, 65535)
        self._identity_of: dict[Subject, Identity] = {}
        self._number_of: dict[Rule, int] = {}
        self._rule_of: dict[int, Rule] = {}
        self._subject_of: dict[int, Subject] = {}

    def identity(self, subject: Subject) -> Identity:
        """One number per distinct subject."""
        if (known := self._identity_of.get(subject)) is not None:
            return known
        identity = Identity(self._identities.number(_key(subject)))
        self._identity_of[subject] = identity
        self._subject_of[identity] = subject
        return identity

    def subject(self, identity: int) -> Subject | None:
        """The subject behind a number, also of pods that are gone."""
        if identity not in self._subject_of:
            if (key := self._identities.by_number.get(identity)) is None:
                return None
            self._subject_of[identity] = msgspec.json.decode(key, type=Subject)
        return self._subject_of[identity]

    def rule_number(self, rule: Rule) -> int:
        if (known := self._number_of.get(rule)) is None:
            known = self._number_of[rule] = self._rules.number(_key(rule))
            self._rule_of[known] = rule
        return known

    def rule(self, number: int) -> Rule | None:
        if number not in self._rule_of:
            if (key := self._rules.by_number.get(number)) is None:
                return None
            self._rule_of[number] = msgspec.json.decode(key, type=Rule)
        return self._rule_of[number]

    def service_number(self, name: str) -> int:
        return self._services.number(name)

    def service(self, number: int) -> str | None:
        return self._services.by_number.get(number)

    def cidr_identity(self, network: IPNetwork) -> Identity:
        return Identity(self._cidrs.number(str(network)))

    def cidr(self, identity: int) -> IPNetwork | None:
        key = self._cidrs.by_number.get(identity)
        return None if key is None else ip_network(key)

    def endpoint_id(self, pod_uid: str) -> EndpointId:
        return EndpointId(self._endpoints.number(pod_uid))

    def release_endpoint(self, pod_uid: str) -> None:
        self._endpoints.release(pod_uid)

    def endpoint_owners(self) -> list[str]:
        """Uids of all pods that hold an endpoint number."""
        return list(self._endpoints.by_key)

    def retire_identities(self, used: set[Subject]) -> None:
        """Give up the numbers of subjects that no pod has, once three quarters are taken."""
        if len(self._identities.by_key) * 4 < (LAST_ALLOCATED - FIRST_ALLOCATED) * 3:
            return
        for key in set(self._identities.by_key) - {_key(subject) for subject in used}:
            self._identities.release(key)
        self._identity_of = {s: i for s, i in self._identity_of.items() if s in used}
        self._subject_of.clear()
