"""What the edge answers: global names, and the zones that are delegated to it.

Packets in, packets out, as an authority does: AA, no recursion, a referral to nobody. Every other
name is REFUSED; nothing is looked up for anybody.
"""

from __future__ import annotations

from sixfold.discovery.outside import OutsideZone
from sixfold.discovery.wire import IN, TYPE_NAMES, encode_all
from sixfold.discovery.zone import Rcode, ZoneTree, ancestors, lookup
from sixfold.serve.dns_globals import GlobalNames, Subnet, client_subnet
from sixfold.serve.dns_wire import AA, OPCODE, QR, Malformed, Query, compose, parse_query, refuse

TRANSFERS = ("AXFR", "IXFR")


class Outside:
    """Global names come before zones: one of them may lie in a zone."""

    def __init__(self, names: GlobalNames) -> None:
        self._names = names
        self._zones: dict[str, ZoneTree] = {}

    def load(self, zones: tuple[OutsideZone, ...]) -> None:
        self._zones = {zone.origin: zone.tree() for zone in zones}

    def answer(self, packet: bytes, client: str, *, limit: int | None = None) -> bytes | None:
        """The answer; None when it deserves none. ``limit``: in bytes, if not that of UDP."""
        try:
            query = parse_query(packet)
            subnet = client_subnet(query.edns.options) if query.edns is not None else None
        except Malformed:
            return refuse(packet, Rcode.FORMERR)
        if query.flags & QR:
            return None
        limit = query.udp_limit if limit is None else limit
        rcode = Rcode.REFUSED
        if query.flags & OPCODE:
            rcode = Rcode.NOTIMP
        elif query.edns is not None and query.edns.version:
            rcode = Rcode.BADVERS
        elif query.class_ == IN:
            found = self._names.outside(query, client, subnet, limit)
            found = found or self._of_zone(query, subnet, limit)
            if found is not None:
                return found
        return compose(query, rcode, limit=limit, recursive=False)

    def _of_zone(self, query: Query, subnet: Subnet | None, limit: int) -> bytes | None:
        origin = next((one for one in ancestors(query.name) if one in self._zones), None)
        type_ = TYPE_NAMES.get(query.type, f"TYPE{query.type}")
        if origin is None or type_ in TRANSFERS:
            return None
        found = lookup(self._zones[origin], query.name, type_)
        assert found is not None, "the name lies in the zone"
        sections = (found.answers, found.authority, found.additional)
        answers, authority, additional = (encode_all(one, query.name) for one in sections)
        return compose(
            query,
            found.rcode,
            (answers, authority, additional),
            limit=limit,
            flags=AA,
            recursive=False,
            options=b"" if subnet is None else subnet.encode(0),
        )
