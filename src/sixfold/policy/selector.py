"""Which workloads does a selector select? Kept up to date as workloads come and go.

``SelectorIndex`` answers in both directions without asking everyone: a new selector looks only
at workloads that carry one of its labels, a new workload only at selectors that want one of its
labels. Workloads are known by identity: pods that policy cannot tell apart count once.

Pure. Semantics: ``LabelSelector.matches`` (NetworkPolicy v1, meta/v1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping
from typing import Generic, TypeVar

import msgspec

from sixfold.model.identity import Identity, Subject
from sixfold.model.meta import LabelSelector, namespace_labels
from sixfold.policy.ir import EVERYTHING, SERVICE_ACCOUNT_LABEL, Pods

Thing = TypeVar("Thing", bound=Hashable)
FEW = 16  # things that are sooner asked one by one than indexed

_spelled = msgspec.json.Encoder().encode


class Selection:
    """One selector, its members of now, and the policies that use it.

    namespace   the only namespace it looks at, or None
    namespaces  otherwise, which namespaces by their labels
    """

    __slots__ = ("key", "members", "namespace", "namespaces", "peer_of", "pods", "subject_of")

    def __init__(self, key: tuple[str | None, bytes], wanted: Pods) -> None:
        self.key = key
        self.namespace = wanted.namespace
        self.namespaces = wanted.namespaces
        self.pods = wanted.pods
        self.members: set[Identity] = set()
        self.subject_of: set[str] = set()  # policies that apply to the members
        self.peer_of: set[str] = set()  # policies that let the members be talked to, or talk

    def matches(
        self, subject: Subject, labels: Mapping[str, str], around: Mapping[str, str]
    ) -> bool:
        """Whether a workload with these labels, in a namespace with those, is selected."""
        if self.namespace is not None and self.namespace != subject.namespace:
            return False
        return self.namespaces.matches(around) and self.pods.matches(labels)

    @property
    def bucket(self) -> tuple[str, ...]:
        """One thing that every member must have; see ``_buckets``."""
        where = self.namespace or ""
        for key, value in self.pods.match_labels.items():
            return ("pod", where, key, value)
        for key, value in self.namespaces.match_labels.items():
            return ("namespace", key, value)
        return ("any", where)


class LabelIndex(Generic[Thing]):
    """Things by their labels, so that a selector asks only those that may match."""

    __slots__ = ("_having", "_labels")

    def __init__(self) -> None:
        self._labels: dict[Thing, Mapping[str, str]] = {}
        self._having: dict[tuple[str, str], set[Thing]] | None = None  # made when first needed

    @property
    def things(self) -> Collection[Thing]:
        return self._labels.keys()

    def labels(self, thing: Thing) -> Mapping[str, str]:
        return self._labels[thing]

    def add(self, thing: Thing, labels: Mapping[str, str]) -> None:
        self._labels[thing] = labels
        if self._having is not None:
            for pair in labels.items():
                self._having.setdefault(pair, set()).add(thing)

    def discard(self, thing: Thing) -> None:
        labels = self._labels.pop(thing, {})
        if self._having is not None:
            for pair in labels.items():
                having = self._having[pair]
                having.discard(thing)
                if not having:
                    del self._having[pair]

    def select(self, selector: LabelSelector) -> list[Thing]:
        """All things that the selector matches."""
        if not selector.match_labels or len(self._labels) <= FEW:
            return [one for one, labels in self._labels.items() if selector.matches(labels)]
        having = self._having if self._having is not None else self._index()
        nobody: set[Thing] = set()
        wanted = selector.match_labels.items()
        fewest = min((having.get(pair, nobody) for pair in wanted), key=len)
        return [thing for thing in fewest if selector.matches(self._labels[thing])]

    def _index(self) -> dict[tuple[str, str], set[Thing]]:
        having = self._having = {}
        for thing, labels in self._labels.items():
            for pair in labels.items():
                having.setdefault(pair, set()).add(thing)
        return having


class SelectorIndex:
    """Identities on one side, selections on the other, joined as either changes."""

    def __init__(self) -> None:
        self.subjects: dict[Identity, Subject] = {}
        self._around: dict[str, Mapping[str, str]] = {}  # labels of namespaces
        self._namespaces: LabelIndex[str] = LabelIndex()
        self._pods: defaultdict[str, LabelIndex[Identity]] = defaultdict(LabelIndex)
        self._selections: dict[tuple[str | None, bytes], Selection] = {}
        self._watching: defaultdict[tuple[str, ...], set[Selection]] = defaultdict(set)
        self._selected_by: dict[Identity, list[Selection]] = {}

    def inside(self, namespace: str) -> Collection[Identity]:
        """The identities of a namespace."""
        pods = self._pods.get(namespace)
        return pods.things if pods is not None else ()

    def label_namespace(self, name: str, labels: Mapping[str, str] | None) -> set[Selection]:
        """Set the labels of a namespace (None: it is gone); returns selections that may differ."""
        inside = {identity: self.subjects[identity] for identity in self.inside(name)}
        touched = [one for identity in inside for one in self.remove(identity)]
        self._namespaces.discard(name)
        self._around.pop(name, None)
        if labels is not None:
            self._around[name] = labels
            self._namespaces.add(name, labels)
        touched += [
            one for identity, subject in inside.items() for one in self.add(identity, subject)
        ]
        return set(touched)

    def add(self, identity: Identity, subject: Subject) -> list[Selection]:
        """A first pod of this identity; returns the selections that gained it."""
        namespace = subject.namespace
        if namespace not in self._around:  # known only by its pods
            self.label_namespace(namespace, namespace_labels(namespace, {}))
        labels = dict(subject.labels)
        labels[SERVICE_ACCOUNT_LABEL] = subject.service_account
        self.subjects[identity] = subject
        self._pods[namespace].add(identity, labels)
        selected_by: list[Selection] = []
        if self._selections:
            around = self._around[namespace]
            selected_by = [
                selection
                for bucket in _buckets(namespace, labels, around)
                for selection in self._watching.get(bucket, ())
                if selection.matches(subject, labels, around)
            ]
            for selection in selected_by:
                selection.members.add(identity)
        self._selected_by[identity] = selected_by
        return selected_by

    def remove(self, identity: Identity) -> list[Selection]:
        """The last pod of this identity is gone; returns the selections that lost it."""
        namespace = self.subjects.pop(identity).namespace
        pods = self._pods[namespace]
        pods.discard(identity)
        if not pods.things:
            del self._pods[namespace]
        selected_by = self._selected_by.pop(identity)
        for selection in selected_by:
            selection.members.discard(identity)
        return selected_by

    def select(self, wanted: Pods) -> Selection:
        """The selection of this selector: the same object for equal selectors."""
        if wanted.namespaces is EVERYTHING:
            key = (wanted.namespace, _spelled(wanted.pods))
        else:
            key = (wanted.namespace, _spelled((wanted.namespaces, wanted.pods)))
        if (known := self._selections.get(key)) is not None:
            return known
        selection = self._selections[key] = Selection(key, wanted)
        self._watching[selection.bucket].add(selection)
        for name in self._namespaces_of(wanted):
            if (pods := self._pods.get(name)) is not None:
                for identity in pods.select(wanted.pods):
                    selection.members.add(identity)
                    self._selected_by[identity].append(selection)
        return selection

    def _namespaces_of(self, wanted: Pods) -> Collection[str]:
        if wanted.namespace is None:
            return self._namespaces.select(wanted.namespaces)
        around = self._around.get(wanted.namespace)
        return (wanted.namespace,) if around and wanted.namespaces.matches(around) else ()

    def release(self, selection: Selection) -> None:
        """Forget a selection that no policy uses any more."""
        if selection.subject_of or selection.peer_of or selection.key not in self._selections:
            return
        del self._selections[selection.key]
        watching = self._watching[selection.bucket]
        watching.discard(selection)
        if not watching:
            del self._watching[selection.bucket]
        for identity in selection.members:
            self._selected_by[identity].remove(selection)

    def selecting(self, identity: Identity) -> list[Selection]:
        """All selections that have this identity as a member."""
        return self._selected_by.get(identity, [])


def _buckets(
    namespace: str, labels: Mapping[str, str], around: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """Everything by which a selection may look for this workload; see ``Selection.bucket``."""
    buckets: list[tuple[str, ...]] = [("any", ""), ("any", namespace)]
    for key, value in labels.items():
        buckets += (("pod", "", key, value), ("pod", namespace, key, value))
    buckets += [("namespace", key, value) for key, value in around.items()]
    return buckets
