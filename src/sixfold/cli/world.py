"""The world that a question is about: manifests (offline), or what the agent has (live)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sixfold.cli.settings import Settings

if TYPE_CHECKING:
    from sixfold.manifest import Manifests
    from sixfold.model.config import Config
    from sixfold.model.datapath import IPAddress
    from sixfold.model.endpoint import Endpoint
    from sixfold.model.world import World
    from sixfold.policy.reach_parties import View

Command = TypeVar("Command", bound=Callable[..., Any])
POSTURES = ("zero-trust", "kubernetes")
NODE_LABELS = "sixfold.node_labels"  # in the context: given to the command
_WORKLOADS = ("Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")


def filename_option(command: Command) -> Command:
    return click.option(
        "-f",
        "--filename",
        "filenames",
        multiple=True,
        metavar="FILE|DIR|-",
        help="Answer from manifests, without an agent; may be given several times.",
    )(command)


def node_labels(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """Labels as ``key=value``, of lists with commas too; later ones win."""
    from sixfold.manifest import names

    found: dict[str, str] = {}
    for text in filter(None, (part for each in given for part in each.split(","))):
        key, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} has no value; give KEY=VALUE", ctx, param)
        if problem := names.label_key(key) or names.label_value(value):
            raise click.BadParameter(f"{text!r}: {problem}", ctx, param)
        found[key] = value
    labels = tuple(f"{key}={value}" for key, value in found.items())
    ctx.meta[NODE_LABELS] = labels
    return labels


def world_options(command: Command) -> Command:
    """How manifests are to be understood; a running agent has its own settings."""
    command = click.option(
        "--node-labels",
        multiple=True,
        metavar="KEY=VALUE",
        callback=node_labels,
        expose_value=False,
        help="Offline: labels of the node, for nodeSelector.",
    )(command)
    command = click.option(
        "--ipblock-matches-pods",
        type=bool,
        metavar="true|false",
        help="Offline: whether an ipBlock means pods with such an address too. Default true.",
    )(command)
    return click.option(
        "--posture",
        type=click.Choice(POSTURES),
        help="Offline: what holds where no policy decides. zero-trust (the default): denied; "
        "kubernetes: allowed, as upstream.",
    )(command)


def config_of(posture: str | None, ipblock_matches_pods: bool | None) -> Config:
    """The settings that offline questions may choose."""
    from sixfold.model.config import Config

    return Config(
        posture="kubernetes" if posture == "kubernetes" else "zero-trust",
        ipblock_matches_pods=ipblock_matches_pods is not False,
        node_labels=click.get_current_context().meta.get(NODE_LABELS, ()),
    )


def read_manifests(filenames: Sequence[str], namespace: str) -> Manifests:
    """Manifests as offline tools take them."""
    from sixfold.cli.apply import read, report_ignored

    manifests = read(tuple(filenames), namespace, offline=True)
    report_ignored(manifests)
    return manifests


def read_world(
    settings: Settings,
    filenames: Sequence[str],
    posture: str | None = None,
    ipblock_matches_pods: bool | None = None,
) -> World:
    """The world of the manifests, or of the agent when none are given."""
    gc.disable()  # a question is short, and its values have no circles: twice as fast
    click.get_current_context().call_on_close(gc.enable)
    if not filenames:
        if posture or ipblock_matches_pods is not None:
            option = "--posture" if posture else "--ipblock-matches-pods"
            raise click.UsageError(f"{option} is for offline answers; give -f as well")
        return live_world(settings)
    from sixfold.manifest import offline

    manifests = read_manifests(filenames, settings.namespace_or_default)
    return offline(manifests, config_of(posture, ipblock_matches_pods))


def warn_of_unknown_addresses(view: View) -> None:
    """Say it when a proof rests on pods being in no ipBlock because nobody knows where they are."""
    world = view.world
    if not view.plan.cidrs or not world.config.ipblock_matches_pods:
        return
    endpoints = world.endpoints.values()
    unknown = sum(one.ipv4 is None and one.ipv6 is None for one in endpoints)
    if unknown:
        click.echo(
            f"note: {unknown} of {len(endpoints)} workloads have no known address (status.podIP); "
            "no ipBlock is taken to mean them",
            err=True,
        )


def live_world(settings: Settings) -> World:
    """What the agent has now: its objects, and the endpoints as they are attached."""
    from sixfold.manifest import KINDS, Manifests, decode, offline
    from sixfold.model.config import Config

    if click.get_current_context().meta.get(NODE_LABELS):
        raise click.UsageError("--node-labels is for offline answers; give -f as well")
    client = settings.client
    status = client.get("/v1/status")["agent"]
    pods4, pods6 = map(ip_network, status["pod_networks"])
    assert isinstance(pods4, IPv4Network)
    assert isinstance(pods6, IPv6Network)
    config = Config(
        instance=status["instance"],
        node=status["node"],
        posture=status["posture"],
        audit=status["audit"],
        mtls=status["mtls"] if status["mtls_given"] else None,
        trust_domain=status["trust_domain"],
        node_labels=tuple(status["node_labels"]),
        ipblock_matches_pods=status["ipblock_matches_pods"],
        pod_ipv4=pods4,
        pod_ipv6=pods6,
    )
    kinds = [kind for kind in KINDS.values() if kind.struct and kind.name not in _WORKLOADS]
    raws = [raw for kind in kinds if not kind.derived for raw in client.objects(kind.name)]
    objects = [decode(raw, f"agent {status['instance']}", offline=True) for raw in raws]
    endpoints = map(_endpoint, client.objects("Endpoints"))
    return replace(
        offline(Manifests(objects), config),
        endpoints={one.key: one for one in endpoints},
        domains=_domains(client.get("/v1/fqdn")["entries"]),
    )


def _domains(entries: list[dict[str, Any]]) -> dict[str, frozenset[IPAddress]]:
    """What names have resolved to, as ``fqdn cache list -o json`` shows it."""
    found: dict[str, frozenset[IPAddress]] = {}
    for entry in entries:
        known = found.get(entry["name"], frozenset())
        found[entry["name"]] = known | {ip_address(entry["address"])}
    return found


def _endpoint(item: dict[str, Any]) -> Endpoint:
    """An endpoint as ``get endpoints -o json`` shows it."""
    from sixfold.model.endpoint import Endpoint, EndpointId
    from sixfold.model.identity import Identity, NamedPort, Subject

    metadata, status = item["metadata"], item["status"]
    addresses = [ip_address(text) for text in status["ips"]]
    ports = tuple(NamedPort(p["name"], p["protocol"], p["port"]) for p in status["ports"])
    return Endpoint(
        namespace=metadata["namespace"],
        pod=metadata["name"],
        workload=status["workload"],
        subject=Subject(
            metadata["namespace"],
            status["serviceAccount"],
            tuple(sorted(metadata["labels"].items())),
            tuple(sorted({port for port in ports if port.name})),
        ),
        id=EndpointId(status["id"]),
        identity=Identity(status["identity"]),
        ipv4=next((one for one in addresses if isinstance(one, IPv4Address)), None),
        ipv6=next((one for one in addresses if isinstance(one, IPv6Address)), None),
        ifindex=status["ifindex"],
        node=status["node"],
        ready=status["ready"],
        terminating=status["terminating"],
        accelerated=status["accelerated"],
        probe_ports=frozenset(status["probePorts"]),
        publish_ports=ports,
    )
