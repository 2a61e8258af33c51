"""What the policies say that apply to one kind of workload, in the order of their keys.

Pure. Ten thousand policies may apply to the same pods. What steady ones say is then kept, in runs
of ``RUN``, so that a change of one of them costs a run and not all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.policy.entries import Piece, plain_piece
from sixfold.policy.resolved import Grant, Resolved
from sixfold.policy.selector import RUN, Selection

Granting = Callable[[str], Grant]


def granted(
    selecting: Sequence[Selection], resolved: Mapping[str, Resolved], grant: Granting
) -> list[Grant]:
    """What the policies grant that apply to the members of all these selections.

    grant  what one of them grants, by key
    """
    found = [one for one in selecting if one.subject_of]
    if len(found) == 1 and len(found[0].subject_of) <= RUN:
        return [grant(key) for key in found[0].subjects]
    if sum(len(one.subject_of) for one in found) <= RUN:
        return [grant(key) for key in sorted([key for one in found for key in one.subjects])]
    largest = max(found, key=lambda one: len(one.subject_of))
    others = sorted([key for one in found if one is not largest for key in one.subjects])
    grants: list[Grant] = []
    done = 0
    for at, run in enumerate(largest.runs):
        first, last = bisect_left(others, run[0]), bisect_left(others, run[-1])
        grants += map(grant, others[done:first])
        done = last
        known = _known(largest, at, resolved) if first == last else None
        grants += [known] if known else map(grant, sorted([*run, *others[first:last]]))
    return [*grants, *map(grant, others[done:])]


def _known(selection: Selection, at: int, resolved: Mapping[str, Resolved]) -> Grant | None:
    if selection.together is None:
        selection.together = {}
    if at not in selection.together:
        selection.together[at] = together([resolved[key] for key in selection.runs[at]])
    known: Grant | None = selection.together[at]
    return known


def together(policies: Iterable[Resolved]) -> Grant | None:
    """What steady policies say, in this order; None if one of them is not steady."""
    titles: tuple[list[str], list[str]] = ([], [])
    pieces: tuple[dict[object, Piece], dict[object, Piece]] = ({}, {})
    for one in policies:
        if not one.steady:
            return None
        for direction in one.policy.isolates:
            titles[direction].append(one.policy.title)
        for clause in one.clauses:  # of those that say the very same, the first
            if clause.scope not in pieces[clause.direction]:
                pieces[clause.direction][clause.scope] = plain_piece(clause)
    into, out = (tuple(some.values()) for some in pieces)
    return Grant((tuple(titles[INGRESS]), tuple(titles[EGRESS])), (into, out))
