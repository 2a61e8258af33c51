"""What does every layer deny by default, and where is it told not to, by whom, until when?

Pure. Six layers, bottom up as one would meet them; what relaxes one is an object that has an end,
or something older that has none: an annotation, a PeerAuthentication, a flag. ``sixfold status``
shows the layers, rule Z26 of the audit what relaxes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.discovery import DISCOVERY
from sixfold.model.enforcement import ENFORCEMENT, in_audit
from sixfold.model.mesh import Mode
from sixfold.model.peerauthentication import PEER_AUTHENTICATION, WORDS
from sixfold.model.posture import NAME, POSTURE
from sixfold.model.world import World
from sixfold.trust.audit_finding import Evidence, Finding, Object, Path

Layer = Literal["address", "name", "backend", "port", "method", "plaintext"]
LAYERS: dict[Layer, str] = {
    "address": "no packet leaves a pod under an address or MAC that is not its own",
    "name": "no name of a service that the asker may not reach",
    "backend": "no connection to a backend that is not ready",
    "port": "no connection without a rule of each side",
    "method": "no request without a rule, to ports that rules about requests are for",
    "plaintext": "no TCP between pods but mTLS, both ends proved",
}
_OF_WORD: dict[str, Layer] = {"enforcement": "port", "mtls": "plaintext", "discovery": "name"}
AGENT = Object("Agent", "", "sixfold")
DATED = """apiVersion: sixfold.dev/v1
kind: Posture
metadata: {{name: default}}
spec:
  relaxations:
    - {{name: {name}, namespace: {namespace}, {said}, until: "…", reason: "…"}}"""


class Relaxed(NamedTuple):
    """One thing that does not hold somewhere.

    by     who says so: an object, or a flag of the agent
    until  RFC 3339; "": nobody has said
    path   within the object
    """

    layer: Layer
    about: Object
    what: str
    by: str
    until: str = ""
    reason: str = ""
    path: Path = ()


def relaxed(world: World) -> Iterator[Relaxed]:
    """Everything, the dated ones first."""
    for index, one in enumerate(world.relaxations):
        about = Object(POSTURE, "", NAME)
        for word, value in one.said.items():
            yield Relaxed(
                _OF_WORD[word],
                about,
                f"{word}: {value}, for {one.scope}",
                str(one),
                one.until,
                one.reason,
                ("spec", "relaxations", index),
            )
    yield from _by_flag(world)
    path: Path = ("metadata", "annotations")
    for namespace in sorted(world.audited):
        about = Object("Namespace", "", namespace)
        yield Relaxed("port", about, f"namespace {namespace} is in audit", ENFORCEMENT, path=path)
    for namespace in sorted(world.told):
        about = Object("Namespace", "", namespace)
        what = f"everybody is told of the services of namespace {namespace}"
        yield Relaxed("name", about, what, DISCOVERY, path=path)
    for _, policy in sorted(world.policies.items()):
        if in_audit(policy.metadata):
            layer: Layer = "method" if isinstance(policy, AuthorizationPolicy) else "port"
            about = Object(policy.kind, policy.metadata.namespace, policy.metadata.name)
            yield Relaxed(layer, about, "what it denies passes", ENFORCEMENT, path=path)
    yield from _by_peer_authentication(world)


def _by_flag(world: World) -> Iterator[Relaxed]:
    config = world.config
    if config.posture == "kubernetes":
        by = "posture kubernetes"
        yield Relaxed("port", AGENT, "what no policy selects is open", by)
        yield Relaxed("name", AGENT, "everybody is told of every service", by)
    if config.audit:
        yield Relaxed("port", AGENT, "everything is in audit", "up --audit")
        yield Relaxed("name", AGENT, "everybody is told of every service", "up --audit")
    if config.mtls_mode != "strict":
        yield Relaxed("plaintext", AGENT, f"mTLS is {config.mtls_mode}", config.mtls_by)


def _by_peer_authentication(world: World) -> Iterator[Relaxed]:
    for _, one in sorted(world.peer_authentications.items()):
        about = Object(PEER_AUTHENTICATION, one.metadata.namespace, one.metadata.name)
        ports = {f"port {port}": WORDS[it.mode] for port, it in one.spec.port_level_mtls.items()}
        for where, mode in {"": one.mode, **ports}.items():
            if mode is not None and mode is not Mode.STRICT:
                what = f"{where or 'it'} takes plaintext: {mode.name}"
                yield Relaxed("plaintext", about, what, PEER_AUTHENTICATION)


def relaxations(evidence: Evidence) -> Iterator[Finding]:
    """Z26. Posture kubernetes is another posture, not a relaxation: Z01 names who is open."""
    for one in relaxed(evidence.view.world):
        if one.by == "posture kubernetes":
            continue
        yield Finding(
            "Z26",
            "low" if one.until else "medium",
            one.about,
            f"{LAYERS[one.layer]}, but: {one.what}",
            f"{one.by}: {one.reason}" if one.until else f"by {one.by}, without an end",
            "it ends by itself; take it out of the Posture as soon as it may"
            if one.until
            else _dated(one),
            one.path,
        )


def _dated(one: Relaxed) -> str:
    """The same as a relaxation that has an end."""
    said = {"port": "enforcement: audit", "method": "enforcement: audit", "name": "discovery: open"}
    name, namespace = one.about.name, one.about.namespace or "…"
    if one.about.kind == "Namespace":
        namespace = name
    dated = DATED.format(
        name=name, namespace=namespace, said=said.get(one.layer, "mtls: permissive")
    )
    return f"take it back; or, for the time that it is needed:\n{dated}"
