"""The ledger: who holds which number and which address, on disk before it is in the kernel."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sixfold.model.datapath import IPNetwork
from sixfold.model.endpoint import LAST_ENDPOINT, EndpointId
from sixfold.model.identity import (
    FIRST_ALLOCATED,
    FIRST_CIDR,
    FIRST_DOMAIN,
    LAST_ALLOCATED,
    LAST_DOMAIN,
    Identity,
    Subject,
)
from sixfold.model.rule import Rule
from sixfold.observe import Names, ServiceName, cidr_labels, domain_labels, identity_labels
from sixfold.store import Database, Numbers

DOMAINS_KEPT = 4096


class Ledger:
    """Numbers by meaning. Lookups of known values do not touch the disk.

    ``names`` holds the other direction, for flows: also what earlier agents numbered.
    """

    def __init__(self, database: Database, node: str = "") -> None:
        self._identities = Numbers(database, "identity", FIRST_ALLOCATED, LAST_ALLOCATED)
        self._rules = Numbers(database, "rule", 1, 2**32 - 1)
        self._services = Numbers(database, "service", 1, 2**32 - 1)
        self._cidrs = Numbers(database, "cidr", FIRST_CIDR, (2 << 24) - 1)
        self._domains = Numbers(database, "domain", FIRST_DOMAIN, LAST_DOMAIN)
        self._endpoints = Numbers(database, "endpoint", 1, LAST_ENDPOINT)
        self._identity_of: dict[Subject, Identity] = {}
        self._number_of: dict[Rule, int] = {}
        self.names = Names(node=node)
        for number, key in self._rules.by_number.items():
            self.names.rules[number] = msgspec.json.decode(key, type=Rule)
        for number, key in self._identities.by_number.items():
            subject = msgspec.json.decode(key, type=Subject)
            self.names.labels[Identity(number)] = identity_labels(subject)
        for number, key in self._services.by_number.items():
            self.names.services[number] = _service_name(key)
        for number, key in self._cidrs.by_number.items():
            self.names.labels[Identity(number)] = cidr_labels(key)
        for number, key in self._domains.by_number.items():
            self.names.labels[Identity(number)] = domain_labels(key.split())

    def identity(self, subject: Subject) -> Identity:
        """One number per distinct subject."""
        if (known := self._identity_of.get(subject)) is None:
            known = Identity(self._identities.number(_key(subject)))
            self._identity_of[subject] = known
            self.names.labels[known] = identity_labels(subject)
        return known

    def rule_number(self, rule: Rule) -> int:
        if (known := self._number_of.get(rule)) is None:
            known = self._number_of[rule] = self._rules.number(_key(rule))
            self.names.rules[known] = rule
        return known

    def service_number(self, key: str) -> int:
        """``key`` is ``namespace/name``."""
        number = self._services.number(key)
        self.names.services[number] = _service_name(key)
        return number

    def cidr_identity(self, network: IPNetwork) -> Identity:
        identity = Identity(self._cidrs.number(str(network)))
        self.names.labels[identity] = cidr_labels(network)
        return identity

    def domain_identity(self, patterns: frozenset[str]) -> Identity:
        """One number per set of domain patterns."""
        identity = Identity(self._domains.number(_domain_key(patterns)))
        self.names.labels[identity] = domain_labels(patterns)
        return identity

    def retire_domains(self, used: Iterable[frozenset[str]]) -> None:
        """Give up the numbers of sets that are not in the kernel any more, once they are many."""
        if len(self._domains.by_key) < DOMAINS_KEPT:
            return
        for key in set(self._domains.by_key) - set(map(_domain_key, used)):
            self.names.labels.pop(Identity(self._domains.by_key[key]), None)
            self._domains.release(key)

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


def _key(value: Rule | Subject) -> str:
    return msgspec.json.encode(value).decode()


def _domain_key(patterns: frozenset[str]) -> str:
    return " ".join(sorted(patterns))


def _service_name(key: str) -> ServiceName:
    namespace, _, name = key.partition("/")
    return ServiceName(namespace, name, 0)
