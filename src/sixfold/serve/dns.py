"""The cluster resolver: a process of its own, so that names outlive the agent.

    python -m sixfold.serve.dns --instance sixfold

Theory of operation. It answers on UDP and TCP at the resolver addresses: names of its zones from
memory, all others from upstream. The agent sends it the zone over ``<run>/dns.sock`` and then
every change; the last zone is kept in ``<run>/dns-zone.msgpack``, so that a restarted resolver
serves before anybody talks to it. Without a zone every question is SERVFAIL: a name that may
exist is never denied. Answers for names that policies mention wait until the agent has opened
their addresses: see ``dns_openings``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from socket import SOCK_DGRAM, SOCK_STREAM

import msgspec

from sixfold import __version__
from sixfold.discovery.zone import Rcode, ZoneTree
from sixfold.host.datagrams import Datagrams, Sender
from sixfold.host.paths import Paths
from sixfold.host.whole import write_whole
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.serve import dns_control as control
from sixfold.serve.dns_alias import Alias
from sixfold.serve.dns_answer import TCP_MAX, Clients, Responder
from sixfold.serve.dns_edge import Edge
from sixfold.serve.dns_file import ZoneFile, save, saved
from sixfold.serve.dns_forward import Forwarder
from sixfold.serve.dns_globals import GlobalNames
from sixfold.serve.dns_limits import Limits
from sixfold.serve.dns_openings import Openings
from sixfold.serve.dns_outside import Outside
from sixfold.serve.dns_upstream import HostResolvers, Upstreams, parse_upstreams
from sixfold.serve.dns_views import Views
from sixfold.serve.dns_wire import Query
from sixfold.serve.health_ports import HealthPorts

log = logging.getLogger("sixfold.dns")

TCP_CLIENTS_MAX = 256
TCP_IDLE_S = 10.0
FORWARDS_MAX = 2000  # clients waiting for an upstream
SAVE_DELAY_S = 0.2
SOCKET_BUFFER = 1 << 20
IP_FREEBIND = 15  # bind before the address is there; both families have it
IPV6_FREEBIND = 78


class ResolverServer:
    """The sockets, and what stands between them and the zone."""

    def __init__(self, run: Path, resolv_conf: Path) -> None:
        self._socket = run / "dns.sock"
        self._file = ZoneFile(run / "dns-zone.msgpack")
        self._pid_file = run / "dns.pid"
        self._responder = Responder()
        self._host_resolvers = HostResolvers(resolv_conf)
        self._openings = Openings()
        self._globals = GlobalNames()
        self._globals_file = run / "dns-globals.msgpack"
        self._outside = Outside(self._globals)
        self._edge = Edge(self._outside, listen)
        self._health_ports = HealthPorts(listen)
        self._health_ports_file = run / "health-ports.msgpack"
        self._limits_file = run / "dns-limits.msgpack"
        self._forwarder = Forwarder(Upstreams(self._host_resolvers), self._openings.open)
        self._clients = Clients()
        self._loaded: control.Load | None = None  # without its records: those are in the zone
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._tcp_clients: set[asyncio.StreamWriter] = set()
        self._agents: set[asyncio.StreamWriter] = set()
        self._saving: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()

    async def run(self, addresses: Sequence[str], port: int) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if (zone := self._file.load()) is not None:
            self._load(zone)
        self._responder.limits = Limits(saved(self._limits_file, control.decode_limits))
        globals_ = saved(self._globals_file, control.decode_globals)
        await self._load_globals(globals_ or control.Globals())
        if ports := saved(self._health_ports_file, control.decode_health_ports):
            await self._health_ports.serve(ports.ports)
        listeners = []
        for address in addresses:
            try:
                udp, tcp = (listen(address, port, kind) for kind in (SOCK_DGRAM, SOCK_STREAM))
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                log.warning("%s: this kernel lacks IPv6; not served", address)
                continue
            loop.add_reader(udp, self._read_udp, udp, Datagrams(udp))
            listeners.append(await asyncio.start_server(self._serve_tcp, sock=tcp))
        self._socket.unlink(missing_ok=True)
        old_mask = os.umask(0o177)
        try:
            listeners.append(await asyncio.start_unix_server(self._serve_control, self._socket))
        finally:
            os.umask(old_mask)
        write_whole(self._pid_file, f"{os.getpid()}\n".encode())
        log.info("serving %s port %d, pid %d", ", ".join(addresses), port, os.getpid())
        await self._stop.wait()
        if self._saving is not None:
            self._saving.cancel()
            self._save()
        self._file.close()
        self._edge.close()
        self._health_ports.close()
        self._socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
        for writer in (*self._agents, *self._tcp_clients):
            writer.close()
        await asyncio.sleep(0.01)  # lets their tasks see it and end by themselves

    # --- questions --------------------------------------------------------------------------

    def _read_udp(self, sock: socket.socket, datagrams: Datagrams) -> None:
        """One batch, then TCP and the agent get their turn."""
        recall, answers = self._responder.recall, []
        for place, (packet, address) in enumerate(datagrams.receive()):
            if (answer := recall(packet, address)) is None:
                answer = self._answer(sock, packet, address, datagrams.sender(place))
            answers.append(answer)
        if unsent := datagrams.send(answers):
            self._responder.statistics["unsent"] += unsent

    def _answer(
        self, sock: socket.socket, packet: bytes, address: bytes, client: Sender
    ) -> bytes | None:
        """The answer, unless there is none, or an upstream is asked first."""
        if not self._clients.admit(client[0]):
            self._responder.statistics["stranger"] += 1
            return None
        self._responder.know(address, client[0])
        answer = self._responder.respond(packet, client[0], client[1])
        if isinstance(answer, Query | Alias):
            self._spawn_forward(sock, answer, client)
            return None
        return answer

    def _send(self, sock: socket.socket, answer: bytes, client: Sender) -> None:
        try:
            sock.sendto(answer, client)
        except OSError:  # full buffer, or the client is gone: it will ask again
            self._responder.statistics["unsent"] += 1

    def _spawn_forward(self, sock: socket.socket, asked: Query | Alias, client: Sender) -> None:
        if len(self._tasks) >= FORWARDS_MAX:
            query = asked.asked if isinstance(asked, Alias) else asked
            self._send(sock, self._fail(query, query.udp_limit), client)
            return
        task = asyncio.create_task(self._forward_udp(sock, asked, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward_udp(self, sock: socket.socket, asked: Query | Alias, client: Sender) -> None:
        query = asked.asked if isinstance(asked, Alias) else asked
        self._send(sock, await self._forward(asked, query.udp_limit, client[0]), client)

    async def _forward(self, asked: Query | Alias, limit: int, client: str) -> bytes:
        answer: bytes | None
        if isinstance(asked, Alias):
            query, answer = asked.asked, await self._complete(asked, limit, client)
        elif (answer := self._globals.inside(asked, client, limit)) is not None:
            query = asked
            await self._openings.open(query.name, answer)
        else:
            query, answer = asked, await self._forwarder.forward(asked, limit)
        if answer is None:
            return self._fail(query, limit)
        rcode = answer[3] & 0xF
        name = Rcode(rcode).name if rcode in Rcode.__members__.values() else f"RCODE{rcode}"
        self._responder.statistics[name] += 1
        return answer

    async def _complete(self, alias: Alias, limit: int, client: str) -> bytes | None:
        """What stands behind an alias of ours; policy may mention either name."""
        reply = self._globals.inside(alias.rest, client, TCP_MAX)
        if reply is None:
            reply = await self._forwarder.forward(alias.rest, TCP_MAX)
        whole = None if reply is None else alias.complete(reply, TCP_MAX)
        if reply is None or whole is None:
            return None
        await self._openings.open(alias.asked.name, whole)
        return alias.complete(reply, limit)

    def _fail(self, query: Query, limit: int) -> bytes:
        return self._responder.refuse(query, Rcode.SERVFAIL, limit)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, port = writer.get_extra_info("peername")[:2]
        if len(self._tcp_clients) >= TCP_CLIENTS_MAX or not self._clients.admit(address):
            writer.close()
            return
        self._tcp_clients.add(writer)
        try:
            while True:  # until the client leaves or falls silent
                async with asyncio.timeout(TCP_IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    packet = await reader.readexactly(length)
                answer = self._responder.respond(packet, address, port, tcp=True)
                if isinstance(answer, Query | Alias):
                    answer = await self._forward(answer, TCP_MAX, address)
                if answer is None:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                async with asyncio.timeout(TCP_IDLE_S):
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            self._tcp_clients.discard(writer)
            writer.close()

    # --- the agent --------------------------------------------------------------------------

    async def _serve_control(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._agents.add(writer)
        try:
            while True:
                message = control.decode_message(await control.read_frame(reader))
                if isinstance(message, control.Opened):
                    self._openings.opened(message)
                    continue
                if isinstance(message, control.Globals):
                    await self._load_globals(message)
                    save(self._globals_file, message)
                if isinstance(message, control.HealthPorts):
                    await self._health_ports.serve(message.ports)
                    save(self._health_ports_file, message)
                self._take(message, writer)
                control.write_frame(writer, control.encode(self._state(message)))
                await writer.drain()
                if isinstance(message, control.Shutdown):
                    self._stop.set()
        except msgspec.MsgspecError as error:
            log.error("control: not a message: %s; agent of another version?", error)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self._agents.discard(writer)
            self._openings.left(writer)
            if self._responder.telling.writer is writer:
                self._responder.telling.writer = None
            writer.close()

    def _take(self, message: control.Message, writer: asyncio.StreamWriter) -> None:
        match message:
            case control.Watch():
                self._openings.watch(message.patterns, writer, self._forwarder.replies())
                self._responder.telling.writer = writer
            case control.Limits():
                self._responder.limits = Limits(message)
                self._responder.zone_changed()  # whoever is limited now was known as one who is not
                save(self._limits_file, message)
            case control.Load():
                self._load(message)
                self._save_soon()
            case control.Change() if self._responder.zone is not None:
                zone = self._responder.zone
                zone.update(control.delta_of(message))
                zone.serial = message.serial or zone.serial
                if message.views is not None:
                    self._responder.views.change(message.views)
                self._responder.zone_changed()
                self._generation = message.generation
                self._save_soon()

    def _load(self, message: control.Load) -> None:
        zone = ZoneTree(control.settings_of(message), control.zone_of(message.records))
        if self._responder.zone is not None:  # the serial of a zone never goes back
            zone.serial = self._responder.zone.serial + 1
        zone.serial = message.serial or zone.serial
        self._ask(message)
        self._clients = Clients(message.clients)
        self._responder.zone = zone
        self._responder.views = Views(message.views, message.clients)
        self._responder.zone_changed()
        self._generation = message.generation
        message.records = []
        self._loaded = message

    def _ask(self, message: control.Load) -> None:
        """The upstreams of the message; what was heard of the same ones before stays."""
        before, now = self._loaded, (message.upstreams, message.stub_domains)
        if before is not None and (before.upstreams, before.stub_domains) == now:
            return
        configured = parse_upstreams(message.upstreams)
        others = (lambda: configured) if configured else self._host_resolvers
        self._forwarder.ask_instead(Upstreams(others, message.stub_domains))

    async def _load_globals(self, message: control.Globals) -> None:
        self._globals.load(message.names)
        self._outside.load(message.zones)
        await self._edge.serve(message.edge)

    def _state(self, asked: control.Message) -> control.State:
        zone = self._responder.zone
        statistics = dict(self._responder.statistics)
        statistics |= {"forwarded": self._forwarder.asked, "cached": self._forwarder.cached}
        statistics |= self._openings.statistics
        statistics |= self._edge.statistics
        return control.State(
            pid=os.getpid(),
            version=__version__,
            synced=zone is not None,
            generation=self._generation,
            records=len(zone.records) if zone else 0,
            statistics=statistics,
            problem=self._problem(asked),
        )

    def _problem(self, asked: control.Message) -> str:
        about = self._health_ports if isinstance(asked, control.HealthPorts) else self._edge
        return about.problem

    def _save_soon(self) -> None:
        if self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(SAVE_DELAY_S, self._save)

    def _save(self) -> None:
        self._saving = None
        assert self._loaded is not None, "only a zone is saved"
        assert self._responder.zone is not None, "only a zone is saved"
        views = self._responder.views.copy()
        zone = self._responder.zone
        settings = msgspec.structs.replace(
            self._loaded, generation=self._generation, views=views, serial=zone.serial
        )
        self._file.save(settings, zone.records)


def listen(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A bound socket; the address need not be there yet."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    if kind == SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the resolver of one instance."""
    parser = argparse.ArgumentParser(prog="sixfold.serve.dns", description="the cluster resolver")
    parser.add_argument("--instance", default="sixfold")
    parser.add_argument("--listen", action="append", help="address (default: the resolver's)")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"))
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    os.chdir("/")
    run = Paths(options.instance).run
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    addresses = options.listen or [str(RESOLVER_IPV4), str(RESOLVER_IPV6)]
    try:
        asyncio.run(ResolverServer(run, options.resolv_conf).run(addresses, options.port))
    except OSError as error:
        print(f"resolver: {error}; is another one running?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
