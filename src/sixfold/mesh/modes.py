"""Which mode has each port of each pod, and which PeerAuthentication says so?

Pure. The narrowest scope that says something decides: port, workload, namespace, mesh; what none
says is ``--mtls``, or the posture. Of several in one scope the oldest is read, and no other
(Istio's reference of PeerAuthentication). A relaxation of the posture then makes what is
stricter less strict. When nothing in the mesh wants mTLS there is no mesh,
and nobody pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from sixfold.model.endpoint import Endpoint
from sixfold.model.mesh import ANY_PORT, MODES, TUNNEL_PORT, Mode, PortMode
from sixfold.model.peerauthentication import ROOT_NAMESPACES, WORDS, PeerAuthentication
from sixfold.model.posture import Relaxation
from sixfold.model.world import World

BY_REQUESTS = "a rule about requests"


class Decided(NamedTuple):
    """A mode, and what says so: an object's ``namespace/name``, or the flag."""

    mode: Mode
    by: str


class PodModes(NamedTuple):
    """Of one pod: of every port, and of those that have one of their own."""

    every: Decided
    ports: Mapping[int, Decided]
    looked_into: frozenset[int] = frozenset()  # a policy is about requests to them
    looks_out: bool = False  # the proxy has to see some of what it dials

    def of(self, port: int) -> Decided:
        return self.ports.get(port, self.every)


class Scopes:
    """The PeerAuthentications of a world, by scope, the oldest first."""

    def __init__(self, world: World) -> None:
        self._flag = Decided(MODES[world.config.mtls_mode], world.config.mtls_by)
        given = sorted(world.peer_authentications.values(), key=_age)
        self._wide = _first_by_namespace(one for one in given if not one.labels)
        self._relaxations = [one for one in world.relaxations if one.mtls]
        self._narrow: dict[str, list[PeerAuthentication]] = {}
        for one in given:
            if one.labels:
                self._narrow.setdefault(one.metadata.namespace, []).append(one)

    def of(self, endpoint: Endpoint) -> PodModes:
        """The modes of one pod."""
        every = self._flag
        roots = sorted((it for it in self._wide if it in ROOT_NAMESPACES), reverse=True)
        for namespace in (*roots[:1], endpoint.namespace):
            every = _narrowed(every, self._wide.get(namespace))
        labels = dict(endpoint.subject.labels).items()
        own = next(
            (it for it in self._narrow.get(endpoint.namespace, ()) if it.labels.items() <= labels),
            None,
        )
        every = _narrowed(every, own)
        ports: dict[int, Decided] = {}
        if own is not None:
            for port, said in own.spec.port_level_mtls.items():
                if (mode := WORDS[said.mode]) is not None:
                    ports[int(port)] = Decided(mode, f"{_name(own)}, port {port}")
        return self._relaxed(endpoint, PodModes(every, ports))

    def _relaxed(self, endpoint: Endpoint, modes: PodModes) -> PodModes:
        for one in self._relaxations:
            if one.selects(endpoint.namespace, endpoint.labels):
                modes = _relaxed_by(one, modes)
        return modes


def plan_modes(
    world: World,
    looked_into: Callable[[Endpoint], frozenset[int]] = lambda _: frozenset(),
    strict_by: Callable[[Endpoint], str] = lambda _: "",
    looks_out: Collection[str] = (),
) -> dict[str, PodModes]:
    """The modes of every pod of the mesh; empty: there is no mesh.

    looked_into  ports about whose requests a policy is: they are strict, whatever else is said
    strict_by    the AuthorizationPolicy that makes all ports of a pod strict; "": none
    looks_out    pods of whose dials the proxy has to see some
    """
    if not world.has_proxy:
        return {}
    scopes = Scopes(world)
    found = {key: scopes.of(endpoint) for key, endpoint in world.endpoints.items()}
    for key, gateway in world.gateways_abroad.items():
        if key in found:  # in plaintext nobody comes to where other trust domains do
            found[key] = PodModes(Decided(Mode.STRICT, f"Gateway {gateway.key}"), {})
    for key, endpoint in world.endpoints.items():
        if by := strict_by(endpoint):
            found[key] = PodModes(Decided(Mode.STRICT, f"AuthorizationPolicy {by}"), {})
        if ports := looked_into(endpoint):
            strict = dict.fromkeys(ports, Decided(Mode.STRICT, BY_REQUESTS))
            found[key] = PodModes(found[key].every, {**found[key].ports, **strict}, ports)
    for key in looks_out:
        found[key] = found[key]._replace(looks_out=True)
    return found


def kernel_lines(
    modes: Mapping[str, PodModes], endpoints: Mapping[str, Endpoint]
) -> frozenset[PortMode]:
    """What the kernel is told: of every pod what holds for all ports, then the exceptions."""
    return frozenset(
        PortMode(
            endpoints[key].id,
            port,
            decided.mode,
            endpoints[key].ifindex,
            looked_into=port in pod.looked_into,
            looks_out=pod.looks_out and port == ANY_PORT,
        )
        for key, pod in modes.items()
        if endpoints[key].ifindex
        for port, decided in ((ANY_PORT, pod.every), *pod.ports.items())
    )


class Transport(NamedTuple):
    """How a connection between two pods goes; ``mtls``: through the tunnel."""

    mtls: bool
    dropped: bool = False


def transport(
    modes: Mapping[str, PodModes], source: str, destination: str, port: int, *, captured: bool
) -> Transport:
    """What the kernel does with TCP that policy allows; bpf/lib/policy.h says the same.

    captured  its socket was sent to the proxy; a packet that was not is plaintext
    """
    pod = modes.get(destination)
    if pod is None or source == destination:
        return Transport(mtls=False)
    if port == TUNNEL_PORT:
        return Transport(mtls=False, dropped=True)
    mode = pod.of(port).mode
    if captured and source in modes and mode != Mode.DISABLED:
        return Transport(mtls=True)
    return Transport(mtls=False, dropped=mode == Mode.STRICT)


def _relaxed_by(one: Relaxation, modes: PodModes) -> PodModes:
    """Modes with those of a relaxation's ports no stricter than it says."""
    assert one.mtls is not None
    relaxed = Decided(MODES[one.mtls], str(one))
    every, ports = modes.every, dict(modes.ports)
    if not one.ports:
        every = min(every, relaxed, key=_strictness)
    for port in [port.port for port in one.ports] or [*ports]:
        ports[port] = min(modes.of(port), relaxed, key=_strictness)
    return PodModes(every, ports)


def _strictness(one: Decided) -> Mode:
    return one.mode


def _narrowed(wider: Decided, one: PeerAuthentication | None) -> Decided:
    if one is None or one.mode is None:
        return wider
    return Decided(one.mode, _name(one))


def _name(one: PeerAuthentication) -> str:
    return f"PeerAuthentication {one.metadata.namespace}/{one.metadata.name}"


def _age(one: PeerAuthentication) -> tuple[str, str, str]:
    """Manifests have no age: then it is the name."""
    meta = one.metadata
    return meta.creation_timestamp or "", meta.namespace, meta.name


def _first_by_namespace(given: Iterable[PeerAuthentication]) -> dict[str, PeerAuthentication]:
    found: dict[str, PeerAuthentication] = {}
    for one in given:
        found.setdefault(one.metadata.namespace, one)
    return found
