"""``sixfold lb compare``: what would each algorithm make of a service's connections?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli import completer
from sixfold.cli.output import print_structured, print_table
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.cli.world import filename_option
from sixfold.errors import SixfoldError

if TYPE_CHECKING:
    from sixfold.balancing.compare import Arrival, Outcome
    from sixfold.balancing.durations import Duration
    from sixfold.model.datapath import Backend

MADE_UP = IPv4Address("192.0.2.0")  # addresses of backends that have none, offline
CONNECTIONS, CLIENTS = 20_000, 100
USED = ("active", "slow start")  # states of a backend that gets new connections
RECORDED_MIN = 20  # connections: of fewer, nothing can be said


@dataclass(frozen=True, slots=True)
class Subject:
    """One port of a service, and who would get its connections."""

    service: str
    port: int
    protocol: str
    algorithm: str  # in force
    why: str
    backends: tuple[Backend, ...]
    table_size: int


class DurationType(click.ParamType["Duration"]):
    """``[WEIGHT*]SHAPE:MEAN``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from sixfold.balancing.durations import Duration, parse_duration

        if isinstance(value, Duration):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    "compare",
    epilog=examples(
        """
sixfold lb compare web                                     what was recorded, replayed
sixfold lb compare web --rate 20 --duration exp:30s
sixfold lb compare web --rate 200 --duration '9*const:50ms' --duration exp:5m
sixfold lb compare web:grpc -n shop --rate 5 --duration pareto:2m --svg web.svg
sixfold lb compare web -f manifests/ --rate 20 --duration exp:30s -o json
"""
    ),
)
@click.argument("service", metavar="SERVICE[:PORT]", shell_complete=completer.services)
@filename_option
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Connections a second.")
@click.option(
    "--duration",
    "durations",
    type=DurationType(),
    multiple=True,
    metavar="[WEIGHT*]SHAPE:MEAN",
    help="How long they last: const, exp, uniform, lognormal or pareto; repeat it for a mixture.",
)
@click.option(
    "--connections",
    type=click.IntRange(100, 1_000_000),
    default=CONNECTIONS,
    show_default=True,
    help="How many are simulated.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 100_000),
    default=CLIENTS,
    show_default=True,
    help="By how many clients.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Connections that a backend works on at once, times its weight; default: so many that "
    "all together are busy for 80 % of the time.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of all chance.")
@click.option("--svg", metavar="FILE", help="Write the picture there.")
@shared(outputs=ANSWERS)
@pass_settings
def command(
    settings: Settings,
    service: str,
    filenames: tuple[str, ...],
    rate: float | None,
    durations: tuple[Duration, ...],
    connections: int,
    clients: int,
    workers: int | None,
    seed: int,
    svg: str | None,
) -> None:
    """What would each algorithm make of a service's connections?

    The same connections are played to every algorithm, on the service's backends and weights as
    they are now, with the very choice that the kernel makes: those that were recorded, or those
    that --rate and --duration state.

    IMBALANCE is live connections of the busiest backend over the mean, by weight and over time.
    WAIT is how long the unluckiest hundredth waits for a backend that works on others. MOVED is the
    share of clients whose next connection goes elsewhere when one backend goes, and returns.
    """
    from sixfold.balancing import compare_picture as picture
    from sixfold.balancing.compare import compare, enough_workers, stated

    if (rate is None) != (not durations):
        raise click.UsageError("--rate and --duration belong together; without both: as recorded")
    subject = _offline(settings, service, filenames) if filenames else _live(settings, service)
    if not subject.backends:
        raise SixfoldError(f"{subject.service}: {subject.why}")
    if rate is not None:
        arrivals = stated(durations, rate, connections, clients, Random(seed))
        what = f"{connections} stated, {rate:g}/s, {_durations(durations)}"
    elif filenames:
        raise click.UsageError("manifests have no records; give --rate and --duration")
    else:
        arrivals, what = _recorded(settings, subject)
    workers = workers or enough_workers(arrivals, subject.backends)
    outcomes = compare(
        subject.backends, arrivals, workers=workers, table_size=subject.table_size, seed=seed
    )
    title = f"{subject.service}:{subject.port} — {len(subject.backends)} backends; {what}"
    if svg:
        Path(svg).write_text(picture.svg(outcomes, title, subject.algorithm))
    if settings.structured:
        print_structured(_answer(subject, outcomes, len(arrivals), workers, seed), settings.output)
        return
    click.echo(f"connections  {what}; {workers} worker{'s'[: workers != 1]} each")
    click.echo(f"backends     {_backends(subject.backends)}")
    click.echo(f"in force     {subject.algorithm}: {subject.why}\n")
    names = [f"{one.algorithm.title}{_mark(one, subject)}" for one in outcomes]
    rows = [[name, *cells] for name, cells in zip(names, picture.cells(outcomes), strict=True)]
    print_table(["ALGORITHM", "IMBALANCE", "WAIT (99 %)", "MOVED: GOES", "RETURNS"], rows)


def _mark(one: Outcome, subject: Subject) -> str:
    return " *" if one.algorithm.title == subject.algorithm else ""


def _live(settings: Settings, text: str) -> Subject:
    from sixfold.model.datapath import Backend

    name, port = _split(text)
    asked = {"namespace": settings.namespace_or_default, "service": name}
    frontends = settings.client.get("/v1/balancing", asked)["frontends"]
    for one in frontends:
        if port in (None, str(one["port"]), one["name"]):
            # The whole of a dual-stack service is in either family.
            backends = tuple(
                Backend.at(ip_address(each["address"]), each["port"], each["weight"])
                for each in one["backends"]
                if each["state"] in USED and each["weight"]
            )
            why = one["why"] if backends else "refused: no backend is active (sixfold lb list)"
            return Subject(
                one["service"],
                one["port"],
                one["protocol"],
                one["algorithm"],
                why,
                backends,
                one["table_size"],
            )
    raise SixfoldError(f"{name}: has no port {port or 'at all'} that is balanced here")


def _offline(settings: Settings, text: str, filenames: Sequence[str]) -> Subject:
    from sixfold.balancing.explain import explain_balancing
    from sixfold.cli.world import config_of, read_manifests
    from sixfold.manifest import offline
    from sixfold.model.algorithm import TABLE_SIZE, TABLE_SIZE_DEFAULT
    from sixfold.model.datapath import Backend
    from sixfold.model.workload import Deployment, ReplicaSet, StatefulSet

    manifests = read_manifests(filenames, settings.namespace_or_default)
    world = offline(manifests, config_of(None, None))
    name, port = _split(text)
    key = f"{settings.namespace_or_default}/{name}"
    if key not in world.services:
        raise SixfoldError(f"service {key}: not in the manifests")
    number = int(port) if port and port.isdecimal() else port
    answer = explain_balancing(world, world.services[key], number)
    replicas = {
        (one.key.namespace, f"{one.key.kind}/{one.key.name}"): one.object.spec.replicas
        for one in manifests.objects
        if isinstance(one.object, Deployment | StatefulSet | ReplicaSet)
    }
    backends: list[Backend] = []
    for candidate in answer.candidates:
        endpoint = world.endpoints.get(candidate.endpoint)
        made = (endpoint.namespace, endpoint.workload) if endpoint else ("", "")
        for _ in range(replicas.get(made, 1) if candidate.ready else 0):
            address = candidate.address or MADE_UP + len(backends) + 1
            backends.append(Backend.at(address, candidate.port, candidate.weight))
    annotations = world.services[key].metadata.annotations
    return Subject(
        answer.service,
        answer.port,
        "TCP",
        answer.algorithm,
        answer.why,
        tuple(backends),
        int(annotations.get(TABLE_SIZE, TABLE_SIZE_DEFAULT)),
    )


def _split(text: str) -> tuple[str, str | None]:
    name, colon, port = text.removeprefix("svc/").partition(":")
    return name, port if colon else None


def _recorded(settings: Settings, subject: Subject) -> tuple[list[Arrival], str]:
    from sixfold.balancing.compare import Arrival

    namespace, _, name = subject.service.partition("/")
    asked = {
        "namespace": namespace,
        "service": name,
        "port": str(subject.port),
        "protocol": subject.protocol,
    }
    found = settings.client.get("/v1/connections", asked)["connections"]
    if len(found) < RECORDED_MIN:
        raise SixfoldError(
            f"{subject.service}:{subject.port}: {len(found)} connections are recorded; "
            "too few to say anything; give --rate and --duration"
        )
    arrivals = [Arrival(one["at_s"], one["lasts_s"], one["client"]) for one in found]
    still_open = sum(one["open"] for one in found)
    mean_s = sum(one.lasts_s for one in arrivals) / len(arrivals)
    return arrivals, (
        f"{len(found)} recorded, {mean_s:.1f} s on average, {still_open} of them still open"
    )


def _durations(mixture: Sequence[Duration]) -> str:
    return " + ".join(
        (f"{one.weight:g}*" if len(mixture) > 1 else "") + f"{one.shape}:{one.mean_s:g}s"
        for one in mixture
    )


def _backends(backends: Sequence[Backend]) -> str:
    weights = [backend.weight for backend in backends]
    text = f"{len(backends)}"
    return f"{text}, weights {':'.join(map(str, weights))}" if len(set(weights)) > 1 else text


def _answer(
    subject: Subject, outcomes: Sequence[Outcome], connections: int, workers: int, seed: int
) -> Mapping[str, Any]:
    return {
        "service": subject.service,
        "port": subject.port,
        "in_force": subject.algorithm,
        "why": subject.why,
        "backends": [
            {"address": str(one.address), "port": one.port, "weight": one.weight}
            for one in subject.backends
        ],
        "connections": connections,
        "workers": workers,
        "seed": seed,
        "algorithms": [
            {
                "algorithm": one.algorithm.title,
                "imbalance": round(one.imbalance, 4),
                "wait_p99_s": round(one.wait_p99_s, 4),
                "moved_gone": round(one.moved_gone, 4),
                "moved_back": round(one.moved_back, 4),
            }
            for one in outcomes
        ],
    }
