"""``sixfold explain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli import completer
from sixfold.cli.client import ApiError
from sixfold.cli.kinds import by_kind
from sixfold.cli.output import coloured, print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.cli.world import live_world, read_world
from sixfold.errors import NotFoundError

if TYPE_CHECKING:
    from sixfold.mesh.asked import Asked
    from sixfold.model.world import World
    from sixfold.policy.fix import Fix

PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
QUICK_MAX = 100_000  # workloads times policies for which edits are tried without --fix
UNKNOWN = (400, 404, 422)  # answers of the agent that mean: no such name


@click.command(
    short_help="Would this connection be allowed, and which rule says so?",
    epilog=examples(
        """
sixfold explain shop/web shop/db:6379
sixfold explain -n shop web db:6379
sixfold explain shop/web db.shop.svc.cluster.local:6379
sixfold explain -n shop deploy/web svc/db:6379
sixfold explain shop/web 192.0.2.7:443
sixfold explain shop/web shop/cart:80 --method POST --path /items
sixfold explain spiffe://partner.example/ns/x/sa/y shop/db:5432
sixfold explain shop/web shop/db:6379 --fix                what to change, as YAML
sixfold explain -f manifests/ shop/web shop/db:6379        offline, no root, no agent
"""
    ),
)
@click.argument("source", metavar="FROM", shell_complete=completer.places)
@click.argument("destination", metavar="TO[:PORT]", shell_complete=completer.places)
@click.argument("port", metavar="[PORT]", type=click.IntRange(1, 65535), required=False)
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    metavar="FILE|DIR|-",
    help="Answer from manifests, without an agent.",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS, case_sensitive=False),
    default="TCP",
    help="tcp, unless told.",
)
@click.option(
    "--posture", type=click.Choice(["zero-trust", "kubernetes"]), help="Offline: which posture."
)
@click.option("--method", metavar="METHOD", help="Of an HTTP request over it; GET if --path is.")
@click.option("--path", metavar="PATH", help="Of the request; / if --method is given.")
@click.option("--host", metavar="NAME", help="Of the request, or of TLS (SNI); TO, unless told.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Repeatable.")
@click.option("--fix", is_flag=True, help="If denied: the smallest edit that would allow it.")
@shared(outputs=ANSWERS)
@pass_settings
@click.pass_context
def command(
    ctx: click.Context,
    settings: Settings,
    source: str,
    destination: str,
    port: int | None,
    filenames: tuple[str, ...],
    protocol: str,
    posture: str | None,
    method: str | None,
    path: str | None,
    host: str | None,
    headers: tuple[str, ...],
    fix: bool,
) -> None:
    """Would this connection be allowed, and which rule says so?

    FROM and TO are pods, workloads, "host", "world" or addresses; TO may be a service or a DNS
    name as well; a kind may stand before a name: deploy/web, shop/svc/db. FROM may be a SPIFFE ID
    of another trust domain. One line per pattern, bottom up. Exit code 0: allowed; 1:
    denied; 2: no such name.

    With --method, --path, --host or --header a request is explained: the route that it takes, and
    whether a rule about requests allows it. Where TLS is routed, --host is what it names.

    --fix tries edits on the compiled policies and prints those that let least else pass, one for
    each side that denies, as whole NetworkPolicies to apply; the explanation becomes a comment.
    """
    destination, own_port = split_port(destination)
    port = port or own_port
    if (found := by_kind(source)) and found[1].name == "Service":
        raise click.UsageError(
            f"{source!r}: a service opens no connections; give a pod or workload"
        )
    source, destination = (qualified(settings, text) for text in (source, destination))
    asked = asked_for(method, path, host, headers, destination)
    world = read_world(settings, filenames, posture) if filenames else None
    try:
        if world is not None:
            answer = offline(settings, world, source, destination, port, protocol, asked)
        elif posture:
            raise click.UsageError("--posture is for offline answers; give -f as well")
        else:
            answer = live(settings, source, destination, port, protocol, asked)
    except Unknown as error:
        click.echo(f"error: {error}", err=True)
        ctx.exit(2)
    edits: list[Fix] = []
    if not answer["allowed"] and (fix or filenames):
        world = world or live_world(settings)
        if fix or len(world.endpoints) * len(world.policies) <= QUICK_MAX:
            edits = smallest_edits(settings, world, source, destination, port, protocol)
    report(settings, answer, edits, whole=fix)
    ctx.exit(0 if answer["allowed"] else 1)


def report(settings: Settings, answer: dict[str, Any], edits: list[Fix], *, whole: bool) -> None:
    """Print the answer, a line for each edit, and with ``whole`` the edited policies."""
    if edits:
        *lines, verdict = answer["lines"]
        answer = {**answer, "lines": [*lines, *map(line_of, edits), verdict]}
    if settings.structured:
        more = {"fixes": [structured_fix(one) for one in edits]} if whole else {}
        print_structured({**answer, **more}, settings.output)
        return
    show(answer, before="# " if whole and edits else "")
    lines = answer["lines"]
    if not edits and any(
        one["pattern"][:6] == "policy" and one["outcome"] == "DROPPED" for one in lines
    ):
        click.echo("--fix shows the smallest edit that would allow it", err=True)
    for one in edits if whole else ():
        show_fix(one)


def qualified(settings: Settings, text: str) -> str:
    """``deploy/web`` as ``shop/Deployment/web``; pods and services need no kind."""
    if (found := by_kind(text)) is None:
        return text
    namespace, kind, name = found
    namespace = namespace or settings.namespace_or_default
    plain = kind.name in ("Pod", "Service")
    return f"{namespace}/{name}" if plain else f"{namespace}/{kind.name}/{name}"


class Unknown(Exception):
    """A name in the question that means nothing here."""


def split_port(text: str) -> tuple[str, int | None]:
    """``name:80``, ``192.0.2.1:80``, ``[2001:db8::1]:80``; a bare IPv6 address has no port."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise click.UsageError(f"{text!r}: give [ADDRESS]:PORT")
        return host, _port(text, rest[1:]) if rest else None
    if text.count(":") != 1:
        return text, None
    host, _, port = text.partition(":")
    return host, _port(text, port)


def _port(text: str, port: str) -> int:
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise click.UsageError(f"{text!r}: port {port!r} is not 1 to 65535")
    return int(port)


def asked_for(
    method: str | None, path: str | None, host: str | None, headers: Sequence[str], to: str
) -> Asked | None:
    """None: nothing is said of a request; ``to`` is its host when nothing else is."""
    if not (method or path or host or headers):
        return None
    from sixfold.mesh.asked import Asked

    if path is not None and not path.startswith("/"):
        raise click.UsageError(f"--path {path!r}: does not begin with /")
    found = {}
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon:
            raise click.UsageError(f"--header {text!r}: give 'NAME: VALUE'")
        found[name.strip().lower()] = value.strip()
    return Asked((method or "GET").upper(), path or "/", host or to, found)


def live(
    settings: Settings,
    source: str,
    destination: str,
    port: int | None,
    protocol: str,
    asked: Asked | None = None,
) -> dict[str, Any]:
    """Ask the agent: the very plan that is in the kernel."""
    question = {
        "from": source,
        "to": destination,
        "port": port,
        "protocol": protocol.upper(),
        "namespace": settings.namespace_or_default,
        **({"asked": asdict(asked)} if asked else {}),
    }
    try:
        answer: dict[str, Any] = settings.client.post("/v1/explain", question)
    except ApiError as error:
        if error.status in UNKNOWN:
            raise Unknown(str(error)) from None
        raise
    return answer


def offline(
    settings: Settings,
    world: World,
    source: str,
    destination: str,
    port: int | None,
    protocol: str,
    asked: Asked | None = None,
) -> dict[str, Any]:
    """Compile the manifests as the agent would, and ask that plan."""
    from sixfold.trust.explain import explain, plan_offline

    namespace = settings.namespace_or_default
    try:
        plans, protocol = plan_offline(world), protocol.upper()
        answer = explain(world, plans, source, destination, port, protocol, namespace, asked)
    except NotFoundError as error:
        raise Unknown(str(error)) from None
    return asdict(answer)


def smallest_edits(
    settings: Settings,
    world: World,
    source: str,
    destination: str,
    port: int | None,
    protocol: str,
) -> list[Fix]:
    """The edits that the first flow needs that policy denies; none if it is no matter of policy."""
    from sixfold.policy.fix import fixes
    from sixfold.trust.explain import denied, plan_offline

    plans = plan_offline(world)
    question = (source, destination, port, protocol.upper(), settings.namespace_or_default)
    flows = denied(world, plans, *question)
    return fixes(world, plans.policy, *flows[0]) if flows else []


def line_of(fix: Fix) -> dict[str, Any]:
    besides = f"; lets {fix.others} other pairs pass" if fix.others else ""
    pattern = f"fix {fix.direction}"
    return {"pattern": pattern, "outcome": "smallest", "detail": f"{fix.what}{besides}"}


def structured_fix(fix: Fix) -> dict[str, Any]:
    import msgspec

    policy = msgspec.to_builtins(fix.policy) if fix.policy is not None else None
    return {"side": fix.direction, "what": fix.what, "others": fix.others, "policy": policy}


def show_fix(fix: Fix) -> None:
    """The edit as a comment, and the whole policy after it: YAML that applies."""
    import msgspec

    click.echo("---")
    click.echo(f"# fix {fix.direction} of {fix.subject}: {fix.what}")
    if fix.policy is not None:
        item = msgspec.to_builtins(fix.policy)
        keys = ("apiVersion", "kind", "metadata", "spec", "specs")
        print_structured({key: item[key] for key in keys if key in item}, "yaml")


def show(answer: dict[str, Any], before: str = "") -> None:
    """The verdict on top, then one line per pattern."""
    width = max((len(line["pattern"]) for line in answer["lines"]), default=0)
    outcomes = max((len(line["outcome"]) for line in answer["lines"]), default=0)
    for line in answer["lines"]:
        outcome = coloured(line["outcome"].ljust(outcomes))
        click.echo(f"{before}{line['pattern']:<{width}}  {outcome}  {line['detail']}".rstrip())
