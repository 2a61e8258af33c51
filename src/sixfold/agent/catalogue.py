"""What the catalogue's door is told: answers made of the agent's state."""

from __future__ import annotations

from sixfold.agent.agent import Agent
from sixfold.discovery.prometheus import Scene
from sixfold.errors import UnavailableError


class Told:
    """Implements ``serve.catalogue.Handlers``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def scene(self) -> Scene:
        agent = self._agent
        if agent.plans is None:
            raise UnavailableError("catalogue: nothing is planned yet; try again in a moment")
        pods = {
            f"{key.namespace}/{key.name}": stored.object
            for key, stored in agent.objects.of("Pod").items()
        }
        phases = {state.key: state.phase for state in agent.pods().values()}
        return Scene(agent.plans.world, agent.plans.balancing.slices, pods, phases)
