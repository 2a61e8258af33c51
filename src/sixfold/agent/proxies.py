"""The proxies of a mesh: the node's, and those that are one pod's own.

Theory of operation. A pod has its seat at one proxy, from its start to its end: at its own if its
placement says so when it is first seen, else at the node's. That outlives the agent by what lies in
the run directory: a pod's own proxy has a directory there, and a pod that is known otherwise sits
at the node's. Each proxy is an Envoy and a server of xDS, which tells it what it needs and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sixfold.agent.doors import unix_listener
from sixfold.errors import UnavailableError
from sixfold.host import envoy_admin
from sixfold.host.envoy import Envoy, connections_max, end_strangers, forget, group_of
from sixfold.host.paths import Paths
from sixfold.host.proxy_home import ProxyHome, home_of_node, home_of_pod, homes_of_pods
from sixfold.host.whole import write_whole
from sixfold.mesh.bootstrap import bootstrap
from sixfold.mesh.messages import LISTENER, Name, Resource
from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint
from sixfold.model.placement import NODE, WORKLOAD
from sixfold.serve.xds import OnLog, XdsServer

log = logging.getLogger(__name__)

RESTART_S = 30.0  # so long another process may take to serve
LOOK_S = 0.005
OWN_THREADS = 1  # of a pod's own, where ``--proxy-concurrency`` says nothing

OnEnd = Callable[[str], None]  # by whose it was


class Proxy:
    """One Envoy, and what it is told; ``pod`` is "" for the node's.

    late  it has been waited for in vain; nobody else is kept waiting for it
    """

    def __init__(
        self, config: Config, paths: Paths, home: ProxyHome, on_log: OnLog, turns: asyncio.Semaphore
    ) -> None:
        self.pod = home.pod
        self.late = False
        self._home = home
        self._drain_s = config.proxy_drain_s
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._offered: list[Resource] = []
        self.xds = XdsServer(on_log)
        text = bootstrap(
            config.instance,
            "/".join(filter(None, (config.node, home.pod))),
            str(home.xds_socket),
            str(home.admin_socket),
            connections_max(),
            shared=not home.pod,
        )
        threads = config.proxy_concurrency or (OWN_THREADS if home.pod else 0)
        self.envoy = Envoy(group_of(paths), home, text, threads, turns)

    def begin(self, group: asyncio.TaskGroup, on_end: OnEnd) -> None:
        """Serve until told to stop; Envoy goes on."""
        self._serving = group.create_task(self._run(on_end))

    async def _run(self, on_end: OnEnd) -> None:
        with unix_listener(self._home.xds_socket) as listener:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self.envoy.keep(lambda: on_end(self.pod)))
                await self.xds.serve(listener, self._stop)
                keeping.cancel()

    def __str__(self) -> str:
        return f"envoy of {self.pod}" if self.pod else "envoy"

    def stop(self) -> None:
        self._stop.set()

    async def end(self) -> None:
        """Envoy, too; when its pod is gone."""
        self.stop()
        if self._serving is not None:
            await self._serving
        await self.envoy.end()
        if self.pod:
            forget(self._home)

    def offer(self, resources: list[Resource]) -> None:
        """All that it should hold, from now on."""
        if resources != self._offered:
            self._offered = resources
            self.xds.offer(resources)

    async def taken(self, timeout_s: float) -> list[Name]:
        """What it has not taken, after a while; nothing when it does not run: before it lets
        anything pass it takes all rules."""
        left = []
        if self.envoy.pid:
            left = await self.xds.taken(0.0 if self.late else timeout_s)
        if left and not self.late:
            log.warning("%s: has not taken %d resources yet, as %s", self, len(left), left[0][1])
        self.late = bool(left)
        return left

    def blocks(self) -> bool:
        """Whether what all should have is not in force yet, because of this one."""
        pending = bool(self.envoy.pid and self.xds.pending())
        self.late = self.late and pending
        return pending and not (self.late and self.pod)

    async def started(self, timeout_s: float) -> None:
        """Return when Envoy runs, or after a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.envoy.up.wait(), timeout_s)

    def problem(self) -> str:
        """Why connections do not pass; "" when they should."""
        if not self.envoy.pid:
            return f"{self}: does not run"
        if not self.xds.connected:
            return f"{self}: has not asked for its configuration"
        return ""

    async def restart(self) -> dict[str, Any]:
        """Return when another process takes all new connections."""
        await self.envoy.restart()
        for _ in range(int(RESTART_S / LOOK_S)):
            if self.envoy.all_drain():
                draining = self.envoy.predecessors()
                return {"pid": self.envoy.pid, "draining": draining, "pod": self.pod}
            await asyncio.sleep(LOOK_S)
        reason = self.problem() or f"it does not listen everywhere after {RESTART_S:g} s"
        raise UnavailableError(f"{self}: {reason}; the one before it goes on serving")

    async def relieve(self) -> None:
        """Have an earlier process drain, and end, when the one after it serves."""
        if not self.envoy.predecessors():
            return
        asked = self.envoy.pid  # which may be a predecessor itself by the time that it answers
        if await self._serves() and self.envoy.pid == asked:
            await self.envoy.relieve(self._drain_s)

    async def _serves(self) -> bool:
        """Whether it listens wherever it should."""
        wanted = {
            (LISTENER, one.name) for one in self._offered if one.type_url == LISTENER
        } - self.xds.refused.keys()
        try:
            there = await envoy_admin.listening(self._home.admin_socket)
        except UnavailableError:
            return False
        return bool(self.envoy.pid) and there >= len(wanted)


class Proxies:
    """All of one agent; ``seat`` is told who is there, ``run`` keeps them running.

    names  links to pods' namespaces by their numbers: who has one was here before
    """

    def __init__(
        self, config: Config, paths: Paths, names: Path, on_log: OnLog, on_end: OnEnd
    ) -> None:
        self._config = config
        self._paths = paths
        self._names = names
        self._on_log = on_log
        self._on_end = on_end
        self._turns = asyncio.Semaphore(os.cpu_count() or 1)
        self._found = dict(homes_of_pods(paths))  # of the agent before, until its pods are known
        self._seats: dict[str, int] = {}  # the number of its namespace, by pod
        self._own: dict[int, Proxy] = {}  # by that number; all others sit at the node's
        self._over: list[Proxy] = []  # to be ended, when there is a group
        self._group: asyncio.TaskGroup | None = None
        self.node: Proxy | None = None
        if config.placement == NODE:
            self._need_node()

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; every Envoy goes on."""
        end_strangers(self._paths)
        if self.node is None:  # an agent before had other settings
            await self._made(home_of_node(self._paths)).end()
        async with asyncio.TaskGroup() as group:
            self._group = group
            for proxy in self:
                proxy.begin(group, self._on_end)
            for proxy in self._over:
                group.create_task(proxy.end())
            await stop.wait()
            self._group = None
            for proxy in self:
                proxy.stop()

    def __iter__(self) -> Iterator[Proxy]:
        if self.node is not None:
            yield self.node
        yield from self._own.values()

    def of(self, pod: str) -> Proxy | None:
        """That at which a pod sits."""
        return self._own.get(self._seats[pod], self.node) if pod in self._seats else None

    def alone(self) -> frozenset[str]:
        """Pods that have one of their own."""
        return frozenset(proxy.pod for proxy in self._own.values())

    def seat(self, pods: Mapping[str, Endpoint]) -> None:
        """Have a proxy for each of these pods, and none for others."""
        for pod, cookie in list(self._seats.items()):
            if pod not in pods or pods[pod].netns_cookie != cookie:
                del self._seats[pod]
                if cookie in self._own:
                    self._end(self._own.pop(cookie))
        for pod in pods.keys() - self._seats.keys():
            self._seat(pods[pod])
        for home in self._found.values():
            self._end(self._made(home))
        self._found.clear()

    def _seat(self, endpoint: Endpoint) -> None:
        pod, cookie = endpoint.key, endpoint.netns_cookie
        self._seats[pod] = cookie
        has_own = self._found.pop(cookie, None) is not None
        was_here = (self._names / str(cookie)).is_symlink()
        if not has_own and (was_here or endpoint.placement != WORKLOAD):
            self._need_node()
            return
        home = home_of_pod(self._paths, pod, cookie)
        home.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.log_file.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(home.pod_file, pod.encode())
        self._own[cookie] = self._begun(self._made(home))

    def _need_node(self) -> None:
        if self.node is None:
            self.node = self._begun(self._made(home_of_node(self._paths)))

    def _made(self, home: ProxyHome) -> Proxy:
        return Proxy(self._config, self._paths, home, self._on_log, self._turns)

    def _begun(self, proxy: Proxy) -> Proxy:
        if self._group is not None:
            proxy.begin(self._group, self._on_end)
        return proxy

    def _end(self, proxy: Proxy) -> None:
        if self._group is not None:
            self._group.create_task(proxy.end())
        else:
            self._over.append(proxy)
