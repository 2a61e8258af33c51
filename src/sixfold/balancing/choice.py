"""Which algorithm for which service port, and why: never an unexamined default.

What the author wrote counts. Else the port's own words decide: an application protocol or a
port name that means long-lived connections gets least connections, for a rotation spreads
connections when they are opened, not while they last. Then what was seen: connections that do live
long get the same, whatever they are called. Everything else is drawn at random, which no backend
that fails quickly can attract.

Source of the words: appProtocol (core/v1: IANA names and kubernetes.io/…), and Istio's
convention for port names, ``protocol`` or ``protocol-anything``.
"""

from __future__ import annotations

import msgspec

from sixfold.model.algorithm import (
    ALGORITHM,
    CILIUM_ALGORITHM,
    NAMED,
    TABLE_SIZE,
    TABLE_SIZE_DEFAULT,
    Algorithm,
)
from sixfold.model.seen import NOTHING_SEEN, Seen
from sixfold.model.service import Service, ServicePort

LONG_LIVED = {
    **dict.fromkeys(("grpc", "http2", "h2", "h2c", "kubernetes.io/h2c"), "many requests"),
    **dict.fromkeys(("ws", "wss", "kubernetes.io/ws", "kubernetes.io/wss"), "web sockets"),
    **dict.fromkeys(("mongo", "mysql", "postgres", "postgresql", "redis"), "pooled sessions"),
    **dict.fromkeys(("amqp", "amqps", "mqtt", "mqtts", "nats", "kafka", "stomp"), "subscriptions"),
    **dict.fromkeys(("ldap", "ldaps", "xmpp", "irc", "ssh"), "sessions"),
}


class Choice(msgspec.Struct, frozen=True, gc=False):
    """An algorithm, and what decided for it."""

    algorithm: Algorithm
    why: str
    table_size: int = TABLE_SIZE_DEFAULT


def choose(service: Service, port: ServicePort, seen: Seen = NOTHING_SEEN) -> Choice:
    """The algorithm of one port of a service; ``manifest`` has checked what is written."""
    annotations = service.metadata.annotations
    size = int(annotations.get(TABLE_SIZE, TABLE_SIZE_DEFAULT))
    for annotation in (ALGORITHM, CILIUM_ALGORITHM):
        if (written := annotations.get(annotation)) is not None:
            return Choice(NAMED[written], f"annotation {annotation}", size)
    why = "nothing says that its connections live long"
    if found := long_lived_word(port):
        carries, source = found
        why = f"{source}: its connections live long, with {carries}"
        return Choice(Algorithm.LEAST_CONNECTIONS, why)
    if source := _word(port)[1]:
        why = f"{source} says nothing of long-lived connections"
    if lasts_s := seen.long_lived.get((port.port, port.protocol)):
        why = f"seen: its connections live long, {lasts_s:.0f} s on average"
        return Choice(Algorithm.LEAST_CONNECTIONS, why)
    return Choice(Algorithm.RANDOM, why)


def long_lived_word(port: ServicePort) -> tuple[str, str] | None:
    """What long-lived connections of the port carry, by its own words; and which words."""
    word, source = _word(port)
    return (LONG_LIVED[word], source) if word in LONG_LIVED else None


def _word(port: ServicePort) -> tuple[str, str]:
    """What the port calls its protocol, and where; "" where it does not."""
    if port.protocol != "TCP":
        return "", ""
    if app := port.app_protocol:
        return app.lower(), f"appProtocol {app}"
    if port.name:
        return port.name.partition("-")[0], f"port name {port.name}"
    return "", ""
