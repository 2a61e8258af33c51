"""The six patterns, and the six things that they deny by default: what ``sixfold status`` says."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sixfold.agent.agent import Agent
from sixfold.policy.audit import in_audit
from sixfold.policy.host import summary
from sixfold.trust.relaxed import LAYERS, relaxed


def patterns(agent: Agent) -> list[dict[str, str]]:
    """Bottom up: what is in force, or what is not there yet; nothing before the first round."""
    plans = agent.plans
    if plans is None:
        return []
    deny = "default deny" if agent.effective.posture == "zero-trust" else "upstream default-allow"
    tables = len({id(table) for table in plans.policy.tables.value_of.values()})
    lines = {
        "routing": ("ok", f"{len(plans.datapath.endpoints)} endpoints, dual stack"),
        "balancing": ("ok", f"{len(plans.datapath.frontends)} frontends, socket level"),
        "discovery": (agent.resolver.state, f"{len(plans.zone)} names at 169.254.20.10"),
        "policy": ("ok", f"{deny}, {tables} tables of {len(plans.world.policies)} policies"),
        "mesh": _mesh(agent),
        "trust": _trust(agent, sum(1 for _ in relaxed(plans.world))),
    }
    if known := agent.learning.summary()["names"]:
        lines["policy"] = ("ok", f"{lines['policy'][1]}, {known} names open")
    if plans.policy.host is not None:
        lines["policy"] = ("ok", f"{lines['policy'][1]}{summary(plans.policy)}")
    if audited := in_audit(plans.world, plans.policy):
        lines["policy"] = ("audit", f"{lines['policy'][1]}; in audit: {', '.join(audited)}")
    if problem := agent.resolver.health_ports_problem:
        lines["balancing"] = ("degraded", problem)
    if agent.backends.panics:
        lines["balancing"] = ("panic", "; ".join(agent.backends.panics))
    if problem := agent.names_problem or agent.global_problem:
        lines["discovery"] = ("degraded", problem)
    if agent.problem:
        lines["policy"] = ("stale", agent.problem)
    return [
        {"name": name, "state": state, "detail": detail} for name, (state, detail) in lines.items()
    ]


def denials(agent: Agent) -> list[dict[str, Any]]:
    """A line for each layer: what it denies by default, and what it is told not to."""
    if agent.plans is None:
        return []
    found = [*relaxed(agent.plans.world)]
    lines = []
    for layer, denies in LAYERS.items():
        said = [
            {"what": one.what, "by": one.by, "until": one.until}
            for one in found
            if one.layer == layer
        ]
        if layer == "backend":
            said += [{"what": one, "by": "panic", "until": ""} for one in agent.backends.panics]
        lines.append({"layer": layer, "denies": denies, "relaxed": said})
    return lines


def _mesh(agent: Agent) -> tuple[str, str]:
    if agent.mesh is None:
        return "absent", "mTLS is disabled: flows between workloads are plaintext"
    status = agent.mesh.status()
    problems = status["problems"]
    degraded = status["refused"] or status["keys"] or problems
    state = "down" if "" in problems else "degraded" if degraded else "ok"
    told = [problems[pod] for pod in sorted(problems)]
    told += [f"refused {name}: {said}" for name, said in status["refused"].items()]
    told += status["keys"].values()
    planned = agent.plans.modes if agent.plans is not None else {}
    modes = Counter(pod.every.mode for pod in planned.values())
    pods = ", ".join(f"{modes[mode]} {mode.name.lower()}" for mode in sorted(modes, reverse=True))
    told.append(f"mTLS of pods: {pods or status['mtls']}")
    if status["pid"]:
        told.append(f"envoy pid {status['pid']}")
    if status["own"]:
        told.append(f"{status['own']} pods have an envoy of their own")
    if status["draining"]:
        told.append(f"{len(status['draining'])} before it keep what is open")
    if status["pending"]:
        told.append(f"{status['pending']} resources pending")
    return state, "; ".join(told)


def _trust(agent: Agent, relaxations: int) -> tuple[str, str]:
    """Ok: every layer denies by default, everywhere, and who is allowed has proved who it is."""
    proved = "on request, no mTLS" if agent.mesh is None else "in every handshake"
    posture = agent.effective.posture
    told = [f"posture {posture}", f"identities of {agent.config.trust_domain} {proved}"]
    if relaxations:
        told.append(f"{relaxations} relaxed, listed below")
    strict = posture == "zero-trust" and agent.mesh is not None and not relaxations
    return "ok" if strict else "relaxed", "; ".join(told)
