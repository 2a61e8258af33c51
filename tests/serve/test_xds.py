"""The xDS server, asked by a client that says word for word what Envoy says."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.discovery.v3 import discovery_pb2
from grpclib.client import Channel, StreamStreamMethod, StreamUnaryMethod

from sixfold.agent.doors import unix_listener
from sixfold.mesh.messages import CLUSTER, LISTENER, ROUTE, SECRET, Resource, packed
from sixfold.serve.xds import ADS, ALS, PART, XdsServer

WAIT_S = 10


def one(kind, name, version="1", **fields):
    return Resource(kind, name, version, packed(discovery_pb2.DeltaDiscoveryRequest()), **fields)


class Client:
    """A stream of Envoy's."""

    def __init__(self, stream):
        self.stream = stream

    async def ask(self, kind, *names, **fields):
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=kind, resource_names_subscribe=names, **fields
        )
        await self.stream.send_message(request)

    async def answer(self):
        return await asyncio.wait_for(self.stream.recv_message(), WAIT_S)

    async def accept(self, answer, error=""):
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=answer.type_url, response_nonce=answer.nonce
        )
        if error:
            request.error_detail.message = error
        await self.stream.send_message(request)

    async def told_nothing(self):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.stream.recv_message(), 0.05)


@asynccontextmanager
async def serving(path, logs=None):
    taken = [] if logs is None else logs
    server, stop = XdsServer(lambda name, entry: taken.append((name, entry))), asyncio.Event()
    with unix_listener(path / "xds.sock") as listener:
        task = asyncio.create_task(server.serve(listener, stop))
        yield server
        stop.set()
        await task


@asynccontextmanager
async def connected(path):
    channel = Channel(path=str(path / "xds.sock"))
    method = StreamStreamMethod(
        channel, ADS, discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DeltaDiscoveryResponse
    )
    try:
        async with method.open() as stream:
            yield Client(stream)
            await stream.cancel()
    finally:
        channel.close()


def names(answer):
    return sorted(it.name for it in answer.resources)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 3 * WAIT_S))


def test_all_clusters_are_told_to_who_names_none(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([one(CLUSTER, "a"), one(CLUSTER, "b"), one(LISTENER, "l")])
            await client.ask(CLUSTER)
            assert names(await client.answer()) == ["a", "b"]

    run(work())


def test_nothing_is_told_before_anything_is_known(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            await client.ask(CLUSTER, initial_resource_versions={"a": "1"})
            await client.told_nothing()
            server.offer([one(CLUSTER, "a")])
            server.offer([one(CLUSTER, "a"), one(CLUSTER, "b")])

    run(work())


def test_who_comes_back_is_told_only_what_is_new_or_gone(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([one(CLUSTER, "a"), one(CLUSTER, "b", "2")])
            had = {"a": "1", "b": "1", "c": "1"}
            await client.ask(CLUSTER, initial_resource_versions=had)
            first, last = await client.answer(), await client.answer()
            assert names(first) == ["b"]
            assert list(last.removed_resources) == ["c"]

    run(work())


def test_what_is_gone_is_said_once_to_who_comes_back_and_asks_for_it(tmp_path):
    """Envoy refuses a message that names a resource twice."""

    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([])
            await client.ask(SECRET, "a", initial_resource_versions={"a": "1"})
            answer = await client.answer()
            assert list(answer.removed_resources) == ["a"]

    run(work())


def test_a_cluster_goes_after_the_listeners_have(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([one(CLUSTER, "a"), one(LISTENER, "l")])
            for kind in (CLUSTER, LISTENER):
                await client.ask(kind)
                await client.accept(await client.answer())
            server.offer([one(CLUSTER, "b"), one(LISTENER, "m")])
            answers = [await client.answer() for _ in range(3)]
            assert [(it.type_url, names(it), list(it.removed_resources)) for it in answers] == [
                (CLUSTER, ["b"], []),
                (LISTENER, ["m"], ["l"]),
                (CLUSTER, [], ["a"]),
            ]

    run(work())


def services(count):
    return [one(CLUSTER, f"service {number:03}", on_demand=True) for number in range(count)]


def test_who_begins_listens_before_it_is_told_of_what_it_can_ask_for(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            many = services(2 * PART)
            rest = [one(CLUSTER, "other"), one(LISTENER, "l"), one(ROUTE, "r")]
            server.offer([*many, *rest])
            await client.ask(CLUSTER)
            first = await client.answer()
            assert names(first) == ["other"]
            await client.accept(first)
            await client.ask(LISTENER)
            listeners = await client.answer()
            await client.ask(ROUTE, "r")
            routes = await client.answer()
            assert (names(listeners), names(routes)) == (["l"], ["r"])
            await client.ask(CLUSTER, "service 042")
            asked = await client.answer()
            assert names(asked) == ["service 042"]
            for answer in (listeners, routes, asked):
                await client.accept(answer)
            told = set()
            while len(told) < len(many) - 1:
                answer = await client.answer()
                assert 0 < len(answer.resources) <= PART
                told |= set(names(answer))
                await client.accept(answer)
            assert told == {it.name for it in many} - {"service 042"}
            assert await server.taken(WAIT_S) == []

    run(work())


def test_who_has_begun_is_told_of_a_cluster_before_the_routes_to_it(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([one(CLUSTER, "a"), one(LISTENER, "l"), one(ROUTE, "r")])
            for kind, wanted in ((CLUSTER, ()), (LISTENER, ()), (ROUTE, ("r",))):
                await client.ask(kind, *wanted)
                await client.accept(await client.answer())
            assert await server.taken(WAIT_S) == []
            server.offer(
                [one(CLUSTER, "a"), *services(1), one(LISTENER, "l"), one(ROUTE, "r", "2")]
            )
            cluster = await client.answer()
            assert names(cluster) == ["service 000"]
            await client.told_nothing()

    run(work())


def test_who_has_nothing_is_told_so_once(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer(services(1))
            await client.ask(CLUSTER)
            answer = await client.answer()
            assert names(answer) == []
            await client.accept(answer)
            await client.told_nothing()

    run(work())


def test_a_secret_that_is_not_there_is_denied_at_once_and_told_when_it_is(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([])
            await client.ask(SECRET, "s")
            answer = await client.answer()
            assert list(answer.removed_resources) == ["s"]
            await client.accept(answer)
            server.offer([one(SECRET, "s"), one(SECRET, "unasked")])
            assert names(await client.answer()) == ["s"]

    run(work())


def test_what_is_refused_is_known_by_name_and_reason_and_the_rest_is_taken(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([one(CLUSTER, "good"), one(CLUSTER, "bad")])
            await client.ask(CLUSTER)
            await client.accept(await client.answer(), "error adding cluster bad: no")
            await server.taken(WAIT_S, [(CLUSTER, "good")])
            assert server.refused == {(CLUSTER, "bad"): "error adding cluster bad: no"}
            assert server.pending() == []
            server.retry()
            answer = await client.answer()
            assert names(answer) == ["bad"]
            await client.accept(answer)
            await server.taken(WAIT_S, [(CLUSTER, "bad")])
            assert server.refused == {}

    run(work())


def test_taken_says_what_was_not(tmp_path):
    async def work():
        async with serving(tmp_path) as server, connected(tmp_path) as client:
            server.offer([one(CLUSTER, "a")])
            await client.ask(CLUSTER)
            answer = await client.answer()
            assert await server.taken(0.01) == [(CLUSTER, "a")]
            await client.accept(answer)
            assert await server.taken(WAIT_S) == []

    run(work())


def test_a_proxy_that_drains_is_told_too_and_waited_for(tmp_path):
    async def work():
        async with (
            serving(tmp_path) as server,
            connected(tmp_path) as old,
            connected(tmp_path) as new,
        ):
            server.offer([one(CLUSTER, "a")])
            for client in (old, new):
                await client.ask(CLUSTER)
                await client.accept(await client.answer())
            assert await server.taken(WAIT_S) == []
            server.offer([one(CLUSTER, "a", "b")])
            await new.accept(await new.answer())
            changed = await old.answer()
            assert await server.taken(0.01) == [(CLUSTER, "a")]
            await old.accept(changed)
            assert await server.taken(WAIT_S) == []

    run(work())


def test_what_is_logged_comes_with_the_name_of_its_log(tmp_path):
    async def work():
        logs = []
        async with serving(tmp_path, logs):
            channel = Channel(path=str(tmp_path / "xds.sock"))
            message = als_pb2.StreamAccessLogsMessage(
                identifier={"log_name": "inbound"}, http_logs={"log_entry": [{}, {}]}
            )
            later = als_pb2.StreamAccessLogsMessage(http_logs={"log_entry": [{}]})
            method = StreamUnaryMethod(
                channel, ALS, als_pb2.StreamAccessLogsMessage, als_pb2.StreamAccessLogsResponse
            )
            async with method.open() as stream:
                await stream.send_message(message)
                await stream.send_message(later, end=True)
                await stream.recv_message()
            channel.close()
        assert [name for name, _ in logs] == ["inbound"] * 3

    run(work())


def test_where_requests_arrive_is_told_before_where_they_are_sent(tmp_path):
    """Who is led to a pod that does not know of it yet would be refused there."""

    async def work():
        async with serving(tmp_path) as server:
            server.offer([one(ROUTE, "inbound|a"), one(ROUTE, "requests|x")])
            async with connected(tmp_path) as client:
                await client.ask(ROUTE, "inbound|a", "requests|x")
                for turn in "12":
                    answer = await client.answer()
                    assert names(answer) == ["inbound|a"]
                    await client.accept(answer)
                    answer = await client.answer()
                    assert names(answer) == ["requests|x"]
                    await client.accept(answer)
                    after = str(int(turn) + 1)
                    server.offer([one(ROUTE, it, after) for it in ("inbound|a", "requests|x")])

    run(work())
