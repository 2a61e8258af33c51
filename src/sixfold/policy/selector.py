"""Which workloads does a selector select? Kept up to date as workloads come and go.

``SelectorIndex`` answers in both directions without asking everyone: a new selector looks only
at workloads that carry one of its labels, a new workload only at selectors that want one of its
labels. Workloads are known by identity: pods that policy cannot tell apart count once.

Pure. Semantics: ``LabelSelector.matches`` (NetworkPolicy v1, meta/v1).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from sixfold.model.identity import HOST, Identity, Subject
from sixfold.model.meta import LabelSelector, namespace_labels
from sixfold.policy.ir import EVERYTHING, SERVICE_ACCOUNT_LABEL, Nodes, Pods

Thing = TypeVar("Thing", bound=Hashable)
Bucket = tuple[str, str, str]  # whose label, its key, its value
ANYBODY: Bucket = ("", "", "")
RUN = 128  # policies that are taken together
NODES = ":nodes"  # in place of a namespace: none may be called so
FEW = 16  # things that are sooner asked one by one than indexed

_spelled = msgspec.json.Encoder().encode


class Selection:
    """One selector, its members of now, and the policies that use it. One of nodes has the host
    for its only member, or none.

    namespace   the only namespace it looks at, or None
    namespaces  otherwise, which namespaces by their labels
    """

    __slots__ = (
        *("key", "members", "namespace", "namespaces", "peer_of", "pods", "subject_of"),
        *("_runs", "_subjects", "together"),
    )

    def __init__(self, key: tuple[str | None, bytes], wanted: Pods) -> None:
        self.key = key
        self.namespace = wanted.namespace
        self.namespaces = wanted.namespaces
        self.pods = wanted.pods
        self.members: set[Identity] = set()
        self.subject_of: set[str] = set()  # policies that apply to the members
        self.peer_of: set[str] = set()  # policies that let the members be talked to, or talk
        self._subjects: list[str] | None = None
        self._runs: list[list[str]] | None = None
        self.together: dict[int, Any] | None = None  # for who asks: what each run comes to

    @property
    def subjects(self) -> list[str]:
        """``subject_of``, sorted; not to be changed."""
        if self._subjects is None:
            self._subjects = sorted(self.subject_of)
        return self._subjects

    @property
    def runs(self) -> list[list[str]]:
        """The same, in pieces."""
        if self._runs is None:
            all_ = self.subjects
            self._runs = [all_[start : start + RUN] for start in range(0, len(all_), RUN)]
        return self._runs

    def apply(self, policy: str) -> None:
        """A policy applies to the members, now or still: it may say something else."""
        if policy not in self.subject_of:
            self.subject_of.add(policy)
            self._regroup()
        elif self.together is not None:
            self.together.pop(bisect_left(self.subjects, policy) // RUN, None)

    def withdraw(self, policy: str) -> None:
        """It no longer does."""
        self.subject_of.discard(policy)
        self._regroup()

    def _regroup(self) -> None:
        if self._subjects is not None:
            self._subjects = self._runs = self.together = None

    def matches(
        self, subject: Subject, labels: Mapping[str, str], around: Mapping[str, str]
    ) -> bool:
        """Whether a workload with these labels, in a namespace with those, is selected."""
        if self.namespace is not None and self.namespace != subject.namespace:
            return False
        return self.namespaces.matches(around) and self.pods.matches(labels)

    @property
    def bucket(self) -> Bucket:
        """One thing that every member must have; see ``_buckets``."""
        for key, value in self.pods.match_labels.items():
            return ("pod", key, value)
        for key, value in self.namespaces.match_labels.items():
            return ("namespace", key, value)
        return ANYBODY


class Watchers:
    """Selections of one namespace, or of any: who asks for a workload with these labels?"""

    __slots__ = ("_all", "_by_bucket")

    def __init__(self) -> None:
        self._all: dict[Selection, None] = {}
        self._by_bucket: dict[Bucket, dict[Selection, None]] | None = None  # made when needed

    def __len__(self) -> int:
        return len(self._all)

    def add(self, selection: Selection) -> None:
        self._all[selection] = None
        if self._by_bucket is not None:
            self._by_bucket.setdefault(selection.bucket, {})[selection] = None

    def discard(self, selection: Selection) -> None:
        self._all.pop(selection, None)
        if self._by_bucket is not None:
            watching = self._by_bucket[selection.bucket]
            watching.pop(selection, None)
            if not watching:
                del self._by_bucket[selection.bucket]

    def asking(self, labels: Mapping[str, str], around: Mapping[str, str]) -> Iterable[Selection]:
        """Those that may match."""
        if len(self._all) <= FEW:
            return self._all
        if self._by_bucket is None:
            self._by_bucket = {}
            for one in self._all:
                self._by_bucket.setdefault(one.bucket, {})[one] = None
        index = self._by_bucket
        return [one for bucket in _buckets(labels, around) for one in index.get(bucket, ())]


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
        if not selector.match_labels and not selector.match_expressions:
            return [*self._labels]
        if not selector.match_labels:
            return [one for one, labels in self._labels.items() if selector.matches(labels)]
        wanted = selector.match_labels.items()
        if len(self._labels) <= FEW:
            found = [one for one, labels in self._labels.items() if wanted <= labels.items()]
            if selector.match_expressions:
                found = [one for one in found if selector.matches(self._labels[one])]
            return found
        having = self._having if self._having is not None else self._index()
        nobody: set[Thing] = set()
        fewest = min((having.get(pair, nobody) for pair in wanted), key=len)
        return [thing for thing in fewest if selector.matches(self._labels[thing])]

    def _index(self) -> dict[tuple[str, str], set[Thing]]:
        having = self._having = {}
        for thing, labels in self._labels.items():
            for pair in labels.items():
                having.setdefault(pair, set()).add(thing)
        return having


class SelectorIndex:
    """Identities on one side, selections on the other, joined as either changes.

    node       labels of this host's node, which stay as they are
    look_into  called before a selection looks into a namespace: who holds workloads back adds
               them now
    """

    def __init__(
        self,
        node: Mapping[str, str] | None = None,
        look_into: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._node = node or {}
        self._look_into = look_into
        self.subjects: dict[Identity, Subject] = {}
        self._around: dict[str, Mapping[str, str]] = {}  # labels of namespaces
        self._namespaces: LabelIndex[str] = LabelIndex()
        self._pods: defaultdict[str, LabelIndex[Identity]] = defaultdict(LabelIndex)
        self._selections: dict[tuple[str | None, bytes], Selection] = {}
        self._watching: dict[str, Watchers] = {}  # by namespace; "": of any
        self._selected_by: dict[Identity, list[Selection]] = {HOST: []}

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
                for where in ("", namespace)
                if (watchers := self._watching.get(where)) is not None
                for selection in watchers.asking(labels, around)
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

    def select_nodes(self, wanted: Nodes) -> Selection:
        """The same for nodes; only the host is one."""
        key = (NODES, _spelled(wanted.labels))
        if (known := self._selections.get(key)) is not None:
            return known
        selection = self._selections[key] = Selection(key, Pods(pods=wanted.labels))
        if wanted.labels.matches(self._node):
            selection.members.add(HOST)
            self._selected_by[HOST].append(selection)
        return selection

    def select(self, wanted: Pods) -> Selection:
        """The selection of this selector: the same object for equal selectors."""
        if wanted.namespaces is EVERYTHING:
            key = (wanted.namespace, _spelled(wanted.pods))
        else:
            key = (wanted.namespace, _spelled((wanted.namespaces, wanted.pods)))
        if (known := self._selections.get(key)) is not None:
            return known
        names = self._namespaces_of(wanted)
        for name in names:
            self._look_into(name)
        if (known := self._selections.get(key)) is not None:  # who was held back wants the same
            return known
        selection = self._selections[key] = Selection(key, wanted)
        where = wanted.namespace or ""
        watchers = self._watching.get(where)
        if watchers is None:
            watchers = self._watching[where] = Watchers()
        watchers.add(selection)
        members, selected_by = selection.members, self._selected_by
        for name in names:
            if (pods := self._pods.get(name)) is not None:
                found = pods.select(wanted.pods)
                members.update(found)
                for identity in found:
                    selected_by[identity].append(selection)
        return selection

    def _namespaces_of(self, wanted: Pods) -> Collection[str]:
        if wanted.namespace is None:
            return self._namespaces.select(wanted.namespaces)
        if wanted.namespaces is EVERYTHING:
            return (wanted.namespace,)
        around = self._around.get(wanted.namespace)
        return (wanted.namespace,) if around and wanted.namespaces.matches(around) else ()

    def release(self, selection: Selection) -> None:
        """Forget a selection that no policy uses any more."""
        if selection.subject_of or selection.peer_of or selection.key not in self._selections:
            return
        del self._selections[selection.key]
        where = selection.namespace or ""
        if selection.key[0] != NODES:
            watchers = self._watching[where]
            watchers.discard(selection)
            if not watchers:
                del self._watching[where]
        for identity in selection.members:
            self._selected_by[identity].remove(selection)

    def selecting(self, identity: Identity) -> list[Selection]:
        """All selections that have this identity as a member."""
        return self._selected_by.get(identity, [])


def _buckets(labels: Mapping[str, str], around: Mapping[str, str]) -> list[Bucket]:
    """Everything by which a selection may look for this workload; see ``Selection.bucket``."""
    return [
        ANYBODY,
        *[("pod", key, value) for key, value in labels.items()],
        *[("namespace", key, value) for key, value in around.items()],
    ]
