"""Labels that mean one workload, and no other.

Pure. Labels that the machinery puts on pods (hashes, ordinals) change with every roll-out and are
never used. Where another workload has all labels of this one and more, the selector says that it
must not have what is more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sixfold.model.meta import LabelSelector, LabelSelectorRequirement

PASSING = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "batch.kubernetes.io/job-name",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
        "pod-template-generation",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)


def lasting(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels as an author wrote them."""
    return {key: value for key, value in sorted(labels.items()) if key not in PASSING}


def common(pods: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What all pods of a workload have, and keep."""
    found: dict[str, str] | None = None
    for labels in pods:
        kept = lasting(labels)
        found = kept if found is None else dict(found.items() & kept.items())
    return dict(sorted((found or {}).items()))


def selector_for(
    labels: Mapping[str, str], others: Iterable[Mapping[str, str]]
) -> tuple[LabelSelector, bool]:
    """A selector for these labels that selects none of the others; False if there is none."""
    without: set[str] = set()
    alone = True
    for other in others:
        if not labels.items() <= other.items():
            continue
        more = sorted(lasting(other).keys() - labels.keys())
        if not more:
            alone = False
        elif not without.intersection(more):
            without.add(more[0])
    absent = [LabelSelectorRequirement(key, "DoesNotExist") for key in sorted(without)]
    return LabelSelector(dict(labels), absent), alone
