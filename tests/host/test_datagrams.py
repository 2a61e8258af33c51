"""Datagrams in batches, over loopback."""

from __future__ import annotations

import socket

import pytest

from sixfold.host.datagrams import BATCH, SIZE_MAX, Datagrams

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def bound(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((LOOPBACK[family], 0))
    sock.settimeout(5)
    return sock


@pytest.mark.parametrize("family", LOOPBACK)
def test_each_sender_gets_its_own_answer_and_some_get_none(
    family: socket.AddressFamily,
) -> None:
    with bound(family) as server:
        datagrams = Datagrams(server)
        for _ in range(2):  # buffers are used again
            clients = [bound(family) for _ in range(9)]
            for number, client in enumerate(clients):
                client.sendto(b"q%d" % number * (number + 1), server.getsockname())
            received = datagrams.receive()
            assert [packet for packet, _ in received] == [b"q%d" % n * (n + 1) for n in range(9)]
            packed = socket.inet_pton(family, LOOPBACK[family])
            assert {address for _, address in received} == {packed}
            for place, client in enumerate(clients):
                assert datagrams.sender(place) == client.getsockname()
            silent = (0, 3, 4, 8)
            answers = [None if n in silent else b"a%d" % n for n in range(9)]
            assert datagrams.send(answers) == 0
            for number, client in enumerate(clients):
                if number in silent:
                    client.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        client.recv(64)
                else:
                    assert client.recv(64) == b"a%d" % number
                client.close()


def test_what_does_not_fit_a_batch_comes_with_the_next() -> None:
    with bound(socket.AF_INET) as server, bound(socket.AF_INET) as client:
        datagrams = Datagrams(server)
        assert datagrams.receive() == []
        assert datagrams.send([]) == 0
        for number in range(BATCH + 2):
            client.sendto(b"%d" % number, server.getsockname())
        client.sendto(bytes(SIZE_MAX + 1), server.getsockname())
        assert len(datagrams.receive()) == BATCH
        rest = [packet for packet, _ in datagrams.receive()]
        assert rest == [b"%d" % BATCH, b"%d" % (BATCH + 1), bytes(SIZE_MAX)]
