"""Whoever types this over SSH is not to end his own session by a policy for the host, unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from sixfold.errors import SixfoldError

if TYPE_CHECKING:
    from sixfold.manifest import Loaded
    from sixfold.model.world import World

end_my_session_option = click.option(
    "--end-my-session",
    is_flag=True,
    help="Also when a policy for the host ends the SSH session that this is typed in.",
)


def refuse_lockout(objects: Iterable[Loaded], world_now: Callable[[], World]) -> None:
    """Raise when these objects, in force beside those of ``world_now``, end this SSH session."""
    from sixfold.host import ssh
    from sixfold.model.ciliumpolicy import CiliumClusterwideNetworkPolicy
    from sixfold.model.policies import policy_key
    from sixfold.policy.host import ends_session
    from sixfold.policy.plan import compile_policies

    policies = [
        one
        for one in (loaded.object for loaded in objects)
        if isinstance(one, CiliumClusterwideNetworkPolicy)
        if any(
            spec is not None and spec.node_selector is not None
            for spec in (one.spec, *(one.specs or ()))
        )
    ]
    session = ssh.session() if policies else None
    if session is None or session.client.is_loopback:
        return
    world = world_now()
    changed = {policy_key(one): one for one in policies}
    plan = compile_policies(replace(world, policies={**world.policies, **changed}))
    if rule := ends_session(plan, session.client, session.port):
        raise SixfoldError(
            f"not applied: it would end your own SSH session from {session.client} to port "
            f"{session.port}: {rule}; allow that port, try it first with the annotation "
            "sixfold.dev/enforcement: audit, or say --end-my-session"
        )
