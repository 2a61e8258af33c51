"""Does one rule say all that another says, whoever comes or goes?

Pure, and careful: it compares what is written, not who is there; "no" also means "not known".
"""

from __future__ import annotations

from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.domain import EVERY_NAME, is_pattern, matches
from sixfold.model.meta import LabelSelector
from sixfold.model.policy import IPBlock
from sixfold.policy import ir
from sixfold.policy.block import includes, parse_cidr, span
from sixfold.policy.entries import port_matches
from sixfold.policy.reach_ports import EVERY_PORT, PORTS, PROTOCOLS, PortSet

_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}


def covers(wide: ir.Line, narrow: ir.Line) -> bool:
    """Whether every flow that the narrow rule matches is matched by the wide one."""
    if wide.direction != narrow.direction or wide.names not in (None, narrow.names):
        return False
    if wide.outward not in (None, narrow.outward) or (wide.outward is None and narrow.outward):
        return False
    return _peers_cover(wide.peers, narrow.peers) and _ports_cover(wide.ports, narrow.ports)


def numeric_ports(ports: tuple[ir.Port, ...] | None) -> tuple[PortSet, frozenset[tuple[str, str]]]:
    """The ports of a rule that have numbers, and the names of the others."""
    matches, names = port_matches(ports)
    found = PortSet()
    for protocol, port, bits in matches:
        if protocol == 0:
            return EVERY_PORT, frozenset(names)
        if (name := _NAMES[protocol]) in PROTOCOLS:
            last = PORTS - 1 if bits == 0 else port + (1 << (16 - bits)) - 1
            found |= PortSet.of(name, port, last)
    return found, frozenset(names)


def _ports_cover(wide: tuple[ir.Port, ...] | None, narrow: tuple[ir.Port, ...] | None) -> bool:
    (more, more_names), (less, less_names) = numeric_ports(wide), numeric_ports(narrow)
    if more == EVERY_PORT:
        return True
    return not (less - more) and less_names <= more_names


def _peers_cover(wide: tuple[ir.Peer, ...] | None, narrow: tuple[ir.Peer, ...] | None) -> bool:
    if wide is None:
        return True
    return narrow is not None and all(any(_peer_covers(w, n) for w in wide) for n in narrow)


def _peer_covers(wide: ir.Peer, narrow: ir.Peer) -> bool:
    if wide == narrow:
        return True
    match wide, narrow:
        case ir.Pods(), ir.Pods():
            inside = wide.namespace in (None, narrow.namespace)
            return (
                inside
                and _implied(wide.namespaces, narrow.namespaces)
                and _implied(wide.pods, narrow.pods)
            )
        case ir.Addresses(), ir.Addresses():
            return wide.outside <= narrow.outside and _block_covers(wide.block, narrow.block)
        case ir.DomainName(), ir.DomainName():
            return wide.pattern == EVERY_NAME or (
                not is_pattern(narrow.pattern) and matches(wide.pattern, narrow.pattern)
            )
    return False


def _implied(wide: LabelSelector, narrow: LabelSelector) -> bool:
    """Whether the narrow selector asks for all that the wide one asks for."""
    lines = [line for line in wide.match_expressions if line not in narrow.match_expressions]
    return wide.match_labels.items() <= narrow.match_labels.items() and all(
        line.key in narrow.match_labels and line.matches(narrow.match_labels) for line in lines
    )


def _block_covers(wide: IPBlock, narrow: IPBlock) -> bool:
    inner = span(parse_cidr(narrow.cidr))
    if includes(wide, inner):
        holes = [span(parse_cidr(text)) for text in wide.except_]
        own = [span(parse_cidr(text)) for text in narrow.except_]
        return all(any(mine.holds(hole) for mine in own) for hole in holes if inner.holds(hole))
    return False
