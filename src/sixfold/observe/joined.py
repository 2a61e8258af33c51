"""One connection of the mesh, one record: what the kernel judged and what the proxy proved.

Pure. Theory of operation. The kernel tells of a connection when it is captured, the proxy when its
tunnel is made, a fraction of a second later: of both sides' rules and of the service the one
knows, of identities and requests the other. They are the same by the client's address and port. So
what the kernel tells is held back until the proxy has told its part; after ``HOLD_S`` it goes into
the log alone. A record of both may grow as long as its connection lasts: in the end it is told how
many bytes went each way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from sixfold.model.flow import Flow, Verdict

HOLD_S = 1.5
OPEN = "open"
ENDS_MAX = 131_072  # connections whose end is waited for; of more the longest open is forgotten
Key = bytes  # a client's address and port


@dataclass(slots=True, eq=False)
class Joined:
    """``event``: the kernel's part, as it came; None: it was told before, or nobody captured it.

    total  bytes sent by the client, and to it; None: it is open, or nobody counts
    """

    event: bytes | None
    flow: Flow
    total: tuple[int, int] | None = None
    is_open: bool = False

    def told(self, decode: Callable[[bytes], Flow]) -> Flow:
        """The record, as far as it is known by now."""
        flow = self.flow if self.event is None else merged(decode(self.event), self.flow)
        if self.total is not None:
            flow = counted(flow, *self.total)
        return replace(flow, extra={**flow.extra, "state": OPEN}) if self.is_open else flow


class Pairs:
    """``key_of`` says which connection an event captured; None: none."""

    def __init__(self, key_of: Callable[[bytes], Key | None]) -> None:
        self._key_of = key_of
        self._held: OrderedDict[Key, tuple[float, bytes]] = OrderedDict()
        self._open: OrderedDict[Key, Joined] = OrderedDict()

    def hold(self, events: Iterable[bytes], now_s: float) -> Iterator[bytes]:
        """What is to be told as it is; the rest is held back."""
        for event in events:
            key = self._key_of(event)
            if key is None:
                yield event
                continue
            if (before := self._held.pop(key, None)) is not None:
                yield before[1]
            self._held[key] = now_s, event

    def due(self, now_s: float) -> Iterator[bytes]:
        """What the proxy has not told of in time."""
        while self._held and next(iter(self._held.values()))[0] + HOLD_S <= now_s:
            yield self._held.popitem(last=False)[1][1]

    def join(self, key: Key, flow: Flow, *, lasts: bool) -> Joined:
        """The proxy's part; ``lasts``: its end will be told, too."""
        _, event = self._held.pop(key, (0.0, None))
        made = Joined(event, flow, is_open=lasts)
        if lasts:
            self._open[key] = made
            if len(self._open) > ENDS_MAX:
                self._open.popitem(last=False)[1].is_open = False
        return made

    def ended(self, key: Key, sent: int, received: int) -> None:
        """A connection is over, and carried so many bytes."""
        if (one := self._open.pop(key, None)) is not None:
            one.total, one.is_open = (sent, received), False

    def abandon(self) -> None:
        """The proxy is away: nobody will tell any end."""
        while self._open:
            self._open.popitem()[1].is_open = False


def merged(kernel: Flow, proxy: Flow) -> Flow:
    """The proxy's verdict, unless it let pass what the kernel only tells of."""
    told = kernel if proxy.verdict is Verdict.FORWARDED else proxy
    return replace(
        proxy,
        time_ns=kernel.time_ns,
        verdict=told.verdict,
        direction=told.direction,
        drop_reason=told.drop_reason,
        egress_rule=proxy.egress_rule or kernel.egress_rule,
        ingress_rule=told.ingress_rule or kernel.ingress_rule,
        service=kernel.service or proxy.service,
        service_port=kernel.service_port or proxy.service_port,
        tcp_flags=kernel.tcp_flags,
        ifindex=kernel.ifindex,
        dial=kernel.dial,
        redirected=kernel.redirected,
    )


def counted(flow: Flow, sent: int, received: int) -> Flow:
    return replace(
        flow, extra={**flow.extra, "bytes_sent": str(sent), "bytes_received": str(received)}
    )
