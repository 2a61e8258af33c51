"""Flows and rule hits, counted under names, for metrics: as many series as there are namespaces,
reasons and rules, and never more than a bound.

Pure. What finds no room is counted under "other" for as long as the agent lives, so that no
counter ever goes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from sixfold.model.identity import WORLD, Identity
from sixfold.model.reason import DropReason
from sixfold.model.rule import Rule
from sixfold.observe.join import VERDICTS, WITH_REASON
from sixfold.observe.names import Names

OTHER: Final = "other"
SERIES_MAX = 5000  # of one metric
NAMESPACE = "k8s:io.kubernetes.pod.namespace="
Labels = tuple[str, ...]
Kind = tuple[int, int, int, int]  # of an event: type, reason, identities of both sides


class Bounded:
    """Counts by labels; those that come when it is full are counted together."""

    def __init__(self, width: int, most: int = SERIES_MAX) -> None:
        self.counts: Counter[Labels] = Counter()
        self._most = most
        self._other = (OTHER,) * width

    def key(self, labels: Labels) -> Labels:
        """The labels that it is counted under."""
        return labels if labels in self.counts or len(self.counts) < self._most else self._other

    def add(self, labels: Labels, count: int) -> None:
        self.counts[self.key(labels)] += count


class FlowCounts:
    """Events by verdict, drop reason and the namespaces of both sides."""

    LABELS = ("verdict", "reason", "source_namespace", "destination_namespace")

    def __init__(self, names: Names) -> None:
        self._names = names
        self.flows = Bounded(len(self.LABELS))

    def take(self, kinds: Iterable[Kind]) -> None:
        for (type_, reason, source, destination), count in Counter(kinds).items():
            verdict = VERDICTS.get(type_)
            labels = (
                verdict.name if verdict else "ERROR",
                _reason(reason) if type_ in WITH_REASON else "",
                self._namespace(source),
                self._namespace(destination),
            )
            self.flows.add(labels, count)

    def _namespace(self, number: int) -> str:
        """Of a pod; what is none has a name that no namespace can have: ``reserved:world``."""
        labels = self._names.labels_of(Identity(number))
        if not labels:
            labels = self._names.labels_of(WORLD)  # a block or a name that policies speak of
        last = labels[-1]
        return last.removeprefix(NAMESPACE) if last.startswith(NAMESPACE) else last


class HitCounts:
    """What rules decided: under the policy that has the rule, or isolates the workload."""

    LABELS = ("namespace", "policy", "rule", "direction")

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self.hits = Bounded(len(self.LABELS))

    def take(self, rules: Mapping[int, Rule], hits: Mapping[int, int]) -> None:
        """The kernel's counters as they are now, by number of the rule."""
        for number, count in sorted(hits.items()):
            last = self._last.get(number, 0)
            fresh = count - last if count >= last else count  # maps of another version begin at 0
            if not fresh or (rule := rules.get(number)) is None:
                continue
            self._last[number] = count
            for labels in titles(rule):
                self.hits.add(labels, fresh)


class Growing:
    """Counters that end with what they count, added up under labels that outlive them."""

    def __init__(self, width: int) -> None:
        self._last: dict[Labels, int] = {}
        self.sums = Bounded(width)

    def take(self, counts: Mapping[Labels, tuple[Labels, int]]) -> None:
        """All of them, as they are now: the labels that each counts for, and its count."""
        for key, (labels, count) in counts.items():
            last = self._last.get(key, 0)
            if fresh := count - last if count >= last else count:  # another of that name
                self.sums.add(labels, fresh)
        self._last = {key: count for key, (_, count) in counts.items()}


def titles(rule: Rule) -> Iterable[Labels]:
    """Labels of a rule; a default deny is named by each policy that isolates the workload."""
    if rule.kind == "builtin":
        yield "", "builtin", rule.name, rule.direction
    elif rule.index >= 0:
        title = rule.name if rule.kind == "NetworkPolicy" else f"{rule.kind} {rule.name}"
        yield rule.namespace, title, rule.place, rule.direction
    else:
        for policy in rule.because.split(","):
            kind, _, named = policy.rpartition(" ") if "/" in policy else ("", "", policy)
            namespace, _, name = named.rpartition("/")
            yield namespace, f"{kind} {name}".strip(), rule.name, rule.direction


def _reason(number: int) -> str:
    try:
        return DropReason(number).name.lower()
    except ValueError:  # a datapath newer than this agent
        return str(number)
