"""Manifests to typed objects: files, directories, standard input, or one decoded mapping.

All problems are found in one pass and raised together, in file order; nothing is taken by
halves. Kinds that are not ours are listed as ignored. Source of the rules: the Kubernetes API;
what we refuse beyond it says so and points to ``docs/support.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import Any, TextIO, cast

from sixfold.errors import ManifestError, Problem
from sixfold.manifest import names
from sixfold.manifest.authorization import authorization_policy
from sixfold.manifest.backend_tls import backend_tls
from sixfold.manifest.cilium_policies import cidr_group, cilium_policy
from sixfold.manifest.controllers import controller, template
from sixfold.manifest.document import PROBLEMS_MAX, Document, line_of, parse
from sixfold.manifest.external import destination_rule, service_entry
from sixfold.manifest.federation import federated_trust_domain, spiffe_id
from sixfold.manifest.gateways import gateway
from sixfold.manifest.globalnames import global_name
from sixfold.manifest.mesh import peer_authentication
from sixfold.manifest.metadata import metadata
from sixfold.manifest.ordered_policies import ordered_policy
from sixfold.manifest.outside import pool
from sixfold.manifest.path import Finding, Path, overlap, show
from sixfold.manifest.pods import pod_spec
from sixfold.manifest.policies import policy
from sixfold.manifest.posture import posture
from sixfold.manifest.routes import route, stream_route
from sixfold.manifest.runtime import unrunnable
from sixfold.manifest.secrets import config_map, secret
from sixfold.manifest.services import service
from sixfold.manifest.shape import shaped
from sixfold.manifest.slices import endpoint_slice
from sixfold.manifest.sources import read
from sixfold.manifest.tokens import request_authentication
from sixfold.manifest.traffic import traffic_policy
from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.backendtls import BackendTLSPolicy
from sixfold.model.ciliumpolicy import (
    CiliumCIDRGroup,
    CiliumClusterwideNetworkPolicy,
    CiliumNetworkPolicy,
)
from sixfold.model.clusternetworkpolicy import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from sixfold.model.clusterspiffeid import ClusterSPIFFEID
from sixfold.model.federation import ClusterFederatedTrustDomain
from sixfold.model.gateway import Gateway, GatewayClass
from sixfold.model.globalname import GlobalName
from sixfold.model.httproute import GRPCRoute, HTTPRoute
from sixfold.model.kinds import Kind, Resource, classify, key_of
from sixfold.model.listenerset import ListenerSet
from sixfold.model.meta import Key, Namespace, Object
from sixfold.model.peerauthentication import PeerAuthentication
from sixfold.model.policy import NetworkPolicy
from sixfold.model.pool import CiliumLoadBalancerIPPool
from sixfold.model.posture import Posture
from sixfold.model.referencegrant import ReferenceGrant
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.secret import ConfigMap, Secret
from sixfold.model.service import EndpointSlice, Service
from sixfold.model.serviceentry import DestinationRule, ServiceEntry
from sixfold.model.streamroute import TCPRoute, TLSRoute
from sixfold.model.trafficpolicy import TrafficPolicy
from sixfold.model.workload import CronJob, Pod, ReplicationController


@dataclass(frozen=True, slots=True)
class Loaded:
    """One object of ours. ``raw`` is as written, aliases shared: do not change it.

    line_at  the line of a field path; only with ``positions``, it keeps the whole text's lines
    """

    key: Key
    object: Resource
    raw: dict[str, Any]
    source: str
    line: int
    line_at: Callable[[Path], int] | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """One object that is not ours; kind "": a document in a folder that is no object at all."""

    api_version: str
    kind: str
    namespace: str
    name: str
    source: str
    line: int


@dataclass(frozen=True, slots=True)
class Manifests:
    """Everything that was given, in the order of reading; keys are unique."""

    objects: list[Loaded] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


def load(
    sources: Iterable[FilePath | str],
    stdin: TextIO | None = None,
    *,
    namespace: str = "default",
    offline: bool = False,
    runnable: bool = False,
    positions: bool = False,
) -> Manifests:
    """Read files, directories (recursively, sorted) and "-".

    namespace  for objects that name none
    offline    take fields that matter only to a pod that runs here, and ignore them
    runnable   also refuse what could not run here: foreign images, no command
    positions  know the line of every field
    """
    problems: list[Problem] = []
    reader = _Reader(problems, namespace, offline, runnable, positions)
    given = [str(source) for source in sources]
    for source, text in read(given, stdin, problems):
        reader.text(text, source, found=offline and source not in given)
    return reader.finish()


def loads(
    text: str,
    source: str = "-",
    *,
    namespace: str = "default",
    offline: bool = False,
    runnable: bool = False,
) -> Manifests:
    """Read one text; see ``load``."""
    reader = _Reader([], namespace, offline, runnable)
    reader.text(text, source)
    return reader.finish()


def decode(
    raw: Mapping[str, Any],
    source: str = "",
    line: int = 0,
    *,
    namespace: str = "default",
    offline: bool = False,
    runnable: bool = False,
) -> Loaded:
    """One object that came as JSON; problems name ``source`` and ``line`` as a whole."""
    reader = _Reader([], namespace, offline, runnable)
    document = Document(raw, line, {})
    reader.one(document, (), raw, source)
    manifests = reader.finish()
    if manifests.objects:
        return manifests.objects[0]
    what = f"{raw.get('apiVersion', '')} {raw.get('kind', '')}".strip()
    raise ManifestError([Problem(source, line, "kind", f"{what} is not ours; see docs/support.md")])


def restore(raw: Mapping[str, Any]) -> Resource:
    """The typed object of JSON that ``decode`` took before: its meaning is not checked again."""
    kind = classify(raw["apiVersion"], raw["kind"])
    assert isinstance(kind, Kind), f"{kind}: was stored, and is not ours"
    assert kind.struct is not None
    return cast(Resource, shaped(raw, kind.struct, offline=False)[0])


@dataclass(slots=True)
class _Reader:
    """Collects objects and problems over all sources of one call."""

    problems: list[Problem]
    namespace: str
    offline: bool
    runnable: bool
    positions: bool = False
    manifests: Manifests = field(default_factory=Manifests)
    first: dict[Key, Loaded] = field(default_factory=dict)
    claimed: dict[str, Loaded] = field(default_factory=dict)
    cut: bool = False  # not all objects were looked at, there were problems enough

    def text(self, text: str, source: str, *, found: bool = False) -> None:
        """``found``: nobody named this file, a folder has it; it may be something else."""
        start = len(self.problems)
        for document in parse(text, source, self.problems):
            if found and _is_something_else(document.value):
                self.manifests.ignored.append(Ignored("", "", "", "", source, document.line))
                continue
            for path, raw in _items(document.value):
                if len(self.problems) >= PROBLEMS_MAX:
                    self.cut = True
                    break
                self.one(document, path, raw, source)
        self.problems[start:] = sorted(self.problems[start:], key=lambda p: (p.line, p.column))

    def one(self, document: Document, path: Path, raw: Any, source: str) -> None:
        line = line_of(document, path)
        kind = self._kind(raw, source, line)
        if kind is None:
            return
        obj, findings = examine(kind, raw, offline=self.offline, runnable=self.runnable)
        for finding in findings:
            where = line_of(document, (*path, *finding.path))
            self.problems.append(Problem(source, where, show(finding.path), finding.message))
        if findings:
            return
        _fill_in(kind, obj, self.namespace)
        lines = partial(_line_at, document, path) if self.positions else None
        loaded = Loaded(key_of(obj), cast(Resource, obj), raw, source, line, lines)
        first = self.first.setdefault(loaded.key, loaded)
        if first is not loaded:
            if self.offline and first.raw == raw:  # once more: a Namespace in each file, often
                return
            message = f"{loaded.key} is in {first.source}:{first.line} too; keep one"
            self.problems.append(Problem(source, line, "", message))
            return
        self._claim_addresses(loaded)
        self.manifests.objects.append(loaded)

    def _claim_addresses(self, loaded: Loaded) -> None:
        """Two services cannot have one address; the agent checks those it has already."""
        if self.offline or not isinstance(loaded.object, Service):
            return
        spec = loaded.object.spec
        for text in {spec.cluster_ip, *spec.cluster_ips} - {"", "None"}:
            owner = self.claimed.setdefault(str(names.address(text)), loaded)
            if owner is not loaded:
                message = f"{text} is the address of {owner.key} too; give another or none"
                problem = Problem(loaded.source, loaded.line, "spec.clusterIP", message)
                self.problems.append(problem)

    def _kind(self, raw: Any, source: str, line: int) -> Kind | None:
        """The kind, when it is ours; else what there is to say has been said."""
        if not isinstance(raw, dict):
            message = "is no Kubernetes object; give apiVersion, kind, metadata and spec"
            self.problems.append(Problem(source, line, "", message))
            return None
        api_version, kind = raw.get("apiVersion"), raw.get("kind")
        for name, value in (("apiVersion", api_version), ("kind", kind)):
            if not isinstance(value, str) or not value:
                self.problems.append(Problem(source, line, name, "is required; add it"))
        if not (isinstance(api_version, str) and isinstance(kind, str) and api_version and kind):
            return None
        found = classify(api_version, kind, offline=self.offline)
        if isinstance(found, Kind) and not found.derived:
            return found
        if isinstance(found, Kind) and self.offline:  # as in a dump of a cluster
            found = None
        elif isinstance(found, Kind):
            found = f"{kind} is derived here; give an EndpointSlice, or a Service with a selector"
        if found:
            self.problems.append(Problem(source, line, "", found))
        else:
            self._ignore(api_version, kind, raw, source, line)
        return None

    def _ignore(self, api_version: str, kind: str, raw: Any, source: str, line: int) -> None:
        meta = raw.get("metadata")
        name, namespace = (
            str(meta.get(part) or "") if isinstance(meta, dict) else ""
            for part in ("name", "namespace")
        )
        self.manifests.ignored.append(Ignored(api_version, kind, namespace, name, source, line))

    def finish(self) -> Manifests:
        if self.cut or len(self.problems) > PROBLEMS_MAX:
            more = f"{PROBLEMS_MAX} problems and more; the rest was not looked at"
            shown = self.problems[:PROBLEMS_MAX]
            self.problems = [*shown, Problem(shown[-1].source, shown[-1].line, "", more)]
        if self.problems:
            raise ManifestError(self.problems)
        return self.manifests


def _line_at(document: Document, path: Path, field: Path) -> int:
    return line_of(document, (*path, *field))


def examine(
    kind: Kind, raw: Any, *, offline: bool = False, runnable: bool = False
) -> tuple[Object, list[Finding]]:
    """The typed object, and everything wrong with it: shape first, then meaning."""
    assert kind.struct is not None
    obj, findings = shaped(raw, kind.struct, offline=offline)
    wrong = [finding.path for finding in findings]
    for finding in _meaning(kind, obj, offline=offline, runnable=runnable):
        places = (finding.path, *finding.also)
        if not any(overlap(place, bad) for place in places for bad in wrong):
            findings.append(finding)
        if len(findings) >= PROBLEMS_MAX:
            break
    return obj, findings


def _meaning(kind: Kind, obj: Object, *, offline: bool, runnable: bool) -> Iterator[Finding]:
    yield from metadata(kind, obj.metadata)  # type: ignore[attr-defined]
    match cast(Resource, obj):
        case Namespace():
            return
        case Pod() as pod:
            yield from pod_spec(("spec",), pod.spec, offline=offline)
        case Service() as svc:
            yield from service(svc, offline=offline)
        case EndpointSlice() as listed:
            yield from endpoint_slice(listed, offline=offline)
        case NetworkPolicy() as netpol:
            yield from policy(netpol, offline=offline)
        case ClusterNetworkPolicy() | AdminNetworkPolicy() | BaselineAdminNetworkPolicy() as anp:
            yield from ordered_policy(anp, offline=offline)
        case CiliumNetworkPolicy() | CiliumClusterwideNetworkPolicy() as cnp:
            yield from cilium_policy(cnp, offline=offline)
        case CiliumLoadBalancerIPPool() as given:
            yield from pool(given)
        case CiliumCIDRGroup() as group:
            yield from cidr_group(group)
        case AuthorizationPolicy() as authorization:
            yield from authorization_policy(authorization)
        case RequestAuthentication() as tokens:
            yield from request_authentication(tokens)
        case PeerAuthentication() as one:
            yield from peer_authentication(one)
        case GlobalName() as name:
            yield from global_name(name)
        case HTTPRoute() | GRPCRoute() as one:
            yield from route(one)
        case ReferenceGrant() | GatewayClass():
            return
        case TrafficPolicy() as one:
            yield from traffic_policy(one)
        case TLSRoute() | TCPRoute() as stream:
            yield from stream_route(stream)
        case ServiceEntry() as entry:
            yield from service_entry(entry)
        case DestinationRule() as dialled:
            yield from destination_rule(dialled)
        case BackendTLSPolicy() as spoken:
            yield from backend_tls(spoken)
        case Secret() as kept:
            yield from secret(kept)
        case ConfigMap() as kept:
            yield from config_map(kept)
        case ClusterFederatedTrustDomain() as foreign:
            yield from federated_trust_domain(foreign)
        case ClusterSPIFFEID() as one:
            yield from spiffe_id(one)
        case Posture() as one:
            yield from posture(one)
        case Gateway() | ListenerSet() as way_in:
            yield from gateway(way_in)
        case CronJob() | ReplicationController() as elsewhere:
            yield from template(elsewhere, offline=offline)
        case owner:
            yield from controller(owner, offline=offline)
    if runnable:
        yield from unrunnable(cast(Resource, obj))


def _fill_in(kind: Kind, obj: Object, namespace: str) -> None:
    meta = obj.metadata  # type: ignore[attr-defined]
    if kind.namespaced and not meta.namespace:
        meta.namespace = namespace


def _is_something_else(value: Any) -> bool:
    """Values of a chart, a pipeline, a compose file: nothing that looks like an object."""
    if isinstance(value, dict):
        return "apiVersion" not in value and "kind" not in value
    return value is not None


def _items(value: Any) -> Iterator[tuple[Path, Any]]:
    """The objects of one document: itself, or what a List holds; empty documents hold none."""
    if value is None:
        return
    if not (isinstance(value, dict) and _is_list(value)):
        yield (), value
        return
    kind, items = value["kind"].removesuffix("List"), value["items"] or []
    for index, item in enumerate(items):
        if isinstance(item, dict) and kind and "kind" not in item:
            item = {"apiVersion": value.get("apiVersion"), "kind": kind, **item}
        yield ("items", index), item


def _is_list(value: Mapping[str, Any]) -> bool:
    kind, items = value.get("kind"), value.get("items")
    named = isinstance(kind, str) and kind.endswith("List")
    return named and "items" in value and (items is None or isinstance(items, list))
