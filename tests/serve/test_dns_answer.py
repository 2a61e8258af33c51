"""An answer that is given again is the answer that would be given now."""

from __future__ import annotations

import dns.message
import dns.rcode
import pytest

from sixfold.discovery.zone import RecordKey, ZoneDelta, ZoneSettings, ZoneTree
from sixfold.model.names import EVERYTHING, NOTHING
from sixfold.serve.dns_answer import Responder
from sixfold.serve.dns_control import Views as ViewsMessage
from sixfold.serve.dns_views import Views

WEB = "web.shop.svc.cluster.local"
FEW = "few.shop.svc.cluster.local"
ZONE = {
    RecordKey(WEB, "A"): ("10.96.0.1",),
    RecordKey(FEW, "A"): ("10.244.0.1", "10.244.0.2", "10.244.0.3"),
}
HERE, THERE = bytes((10, 244, 0, 1)), bytes((10, 244, 0, 2))


@pytest.fixture
def responder() -> Responder:
    found = Responder()
    found.zone = ZoneTree(ZoneSettings(("cluster.local",)), ZONE)
    return found


def query(name: str = WEB) -> bytes:
    return dns.message.make_query(name, "A").to_wire()


def asked(responder: Responder, client: bytes, name: str = WEB) -> dns.message.Message:
    """As the server asks: what is not known is looked up, and then known."""
    text = ".".join(map(str, client))
    message = query(name)
    if (answer := responder.recall(message, client)) is None:
        responder.know(client, text)
        answer = responder.respond(message, text)
        assert responder.recall(message, client) is not None
    assert isinstance(answer, bytes)
    assert answer[:2] == message[:2]
    return dns.message.from_wire(answer)


def test_who_never_asked_is_not_known_and_neither_is_another_question(
    responder: Responder,
) -> None:
    asked(responder, HERE)
    assert responder.recall(query(), THERE) is None
    assert responder.recall(query(FEW), HERE) is None


def test_every_rotation_comes_up_again(responder: Responder) -> None:
    firsts = {asked(responder, HERE, FEW).answer[0][0].address for _ in range(100)}
    assert len(firsts) == 3
    assert responder.statistics["NOERROR"] == 100 + 1  # and one look in asked()


def test_a_change_of_the_zone_is_answered_at_once(responder: Responder) -> None:
    asked(responder, HERE)
    assert responder.zone is not None
    responder.zone.update(ZoneDelta({RecordKey(WEB, "A"): ("10.96.0.9",)}))
    responder.zone_changed()
    assert asked(responder, HERE).answer[0][0].address == "10.96.0.9"


def test_nobody_is_told_what_another_view_shows(responder: Responder) -> None:
    clients = {"10.244.0.1": EVERYTHING, "10.244.0.2": NOTHING}
    responder.views = Views(ViewsMessage(clients, {}, {"shop/web": 1}))
    responder.zone_changed()
    assert asked(responder, HERE).rcode() == dns.rcode.NOERROR
    assert asked(responder, THERE).rcode() == dns.rcode.NXDOMAIN
    responder.views.change(ViewsMessage({"10.244.0.1": NOTHING, "10.244.0.2": EVERYTHING}))
    responder.zone_changed()
    assert asked(responder, HERE).rcode() == dns.rcode.NXDOMAIN
    assert asked(responder, THERE).rcode() == dns.rcode.NOERROR
