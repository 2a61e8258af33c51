"""Which pod was it that the kernel refused something, and what did it run? Told as flows."""

from __future__ import annotations

from sixfold.agent.agent import Agent
from sixfold.host import cgroup, refusals
from sixfold.host.paths import Paths
from sixfold.model.flow import Flow
from sixfold.model.refusal import Refusal
from sixfold.observe.refused import refused_call


class Refusals:
    """Of the pods of one instance; call it for what is new."""

    def __init__(self, agent: Agent, paths: Paths) -> None:
        self._agent = agent
        self._pods = paths.cgroup / "pods"
        self._names: dict[int, str] = {}  # by number of the control group; of what is gone, too
        cgroup.create(self._pods)
        agent.datapath.keep_confined(self._pods, traced=agent.config.trace_calls)

    def __call__(self, boot_offset_ns: int) -> list[Flow]:
        """``boot_offset_ns`` is CLOCK_REALTIME − CLOCK_MONOTONIC."""
        told = refusals.drain(self._agent.datapath.refusals)
        return [self._flow(one, boot_offset_ns) for one in told]

    def _flow(self, refused: Refusal, boot_offset_ns: int) -> Flow:
        agent = self._agent
        if refused.pod not in self._names:
            known = {one.uid: one.key for one in agent.objects.of("Pod").values()}
            uids = refusals.numbers(self._pods)
            self._names |= {
                number: f"{known[uid].namespace}/{known[uid].name}"
                for number, uid in uids.items()
                if uid in known
            }
        pod = self._names.get(refused.pod, "")
        runs = refusals.executable(refused.pid)
        node = agent.config.host_ipv4
        return refused_call(agent.names, pod, node, refused, runs, boot_offset_ns)
