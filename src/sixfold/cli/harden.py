"""``sixfold harden``: from what a namespace does to what it may do, in five steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli import completer
from sixfold.cli.output import coloured, progress
from sixfold.cli.settings import Settings, examples, instance_option, pass_settings
from sixfold.cli.world import live_world
from sixfold.errors import SixfoldError
from sixfold.model.enforcement import AUDIT, ENFORCE, ENFORCEMENT

if TYPE_CHECKING:
    from sixfold.cli.client import Client
    from sixfold.model.policy import NetworkPolicy
    from sixfold.model.world import World
    from sixfold.policy.suggest import Observations

STEPS = 5
ASKING_S = 3600.0  # nobody answers for so long: the namespace is enforced as it was
ROLLED_BACK = timedelta(days=1)
POLL_S = 0.5
OVERLAP = timedelta(seconds=2)  # of polls: a flow may be told a little late
LABEL = {"app.kubernetes.io/managed-by": "sixfold-harden"}
LEFT_OUT = "flows left out"  # notes about those: denied ones are not wanted here
POLICY = ("POLICY_DENIED", "POLICY_DENY")


def duration(ctx: click.Context, param: click.Parameter, text: str) -> float:
    """``30s``, ``5m``, ``1h30m``."""
    from sixfold.model.duration import seconds as parse

    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command(
    short_help="Walk a namespace from what it does to least privilege.",
    epilog=examples(
        """
sixfold harden shop                          30 s of observing, then it asks
sixfold harden shop --for 10m --dry-run > policies.yaml
sixfold harden shop --for 5m --yes --rollback
"""
    ),
)
@click.argument("target", metavar="NAMESPACE", shell_complete=completer.namespaces)
@click.option(
    "--for",
    "for_s",
    default="30s",
    show_default=True,
    metavar="TIME",
    callback=duration,
    help="How long to observe.",
)
@click.option(
    "--watch",
    "watch_s",
    default="30s",
    show_default=True,
    metavar="TIME",
    callback=duration,
    help="How long to look for drops afterwards.",
)
@click.option("--yes", "-y", is_flag=True, help="Enforce without being asked.")
@click.option("--rollback", is_flag=True, help="On drops: back to audit, for a day.")
@click.option("--dry-run", is_flag=True, help="Stop after the diff; nothing is changed for good.")
@instance_option
@pass_settings
@click.pass_context
def command(
    ctx: click.Context,
    settings: Settings,
    target: str,
    for_s: float,
    watch_s: float,
    yes: bool,
    rollback: bool,
    dry_run: bool,
) -> None:
    """Observe, suggest, diff, enforce, watch: each step is told on standard error, the policies are
    written to standard output.

    While it is observed, the namespace is relaxed: what would be denied passes, and is told (a
    relaxation of the Posture, which ends by itself if this command does not come back). What does
    not happen meanwhile is denied afterwards: a nightly job, a failover; and what an intruder does
    meanwhile is suggested, so read the diff. Exit code 0: enforced, and nothing was dropped; 1:
    something was, or nobody wanted it.
    """
    walk = Walk(settings, target)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("nobody can be asked here; give --yes, or --dry-run")
    with walk.observed(for_s):
        found = walk.observe(for_s)
        policies = walk.suggest(found)
        walk.diff(policies)
        if dry_run:
            walk.say(4, "enforce", "not asked for: the namespace is as it was")
            ctx.exit(0)
        if not yes and not click.confirm(f"4/{STEPS} enforce   these policies?", err=True):
            ctx.exit(1)
        walk.enforce(policies)
    dropped = walk.watch(watch_s)
    if dropped and rollback:
        walk.roll_back()
    ctx.exit(1 if dropped else 0)


class Walk:
    """One namespace on its way."""

    def __init__(self, settings: Settings, namespace: str) -> None:
        self.settings = settings
        self.namespace = namespace
        self.relaxation = f"harden-{namespace}"[:63].rstrip("-")
        self.enforced = False
        self.since = datetime.now(UTC)  # of the last step: audit, or enforcement, is in force
        (raw,) = self.client.objects("Namespace", "", namespace)
        annotations = raw["metadata"].get("annotations") or {}
        self.annotated = raw if annotations.get(ENFORCEMENT) == AUDIT else None
        if self.client.get("/v1/status")["agent"]["audit"]:
            raise SixfoldError(
                "harden: everything is in audit (up --audit), so nothing would be enforced; "
                "start without it"
            )

    @property
    def client(self) -> Client:
        return self.settings.client

    def say(self, step: int, what: str, text: str) -> None:
        click.echo(f"{step}/{STEPS} {what:<9} {text}", err=True)

    @contextmanager
    def observed(self, for_s: float) -> Iterator[None]:
        """The namespace is relaxed; as it was again, if nothing comes of it."""
        until = datetime.now(UTC) + timedelta(seconds=for_s + ASKING_S)
        if self.annotated is None:
            self._apply(self._posture(until))
        self.since = datetime.now(UTC)  # before it is told: who waits for the word comes after it
        how = " already" if self.annotated is not None else f", at most until {stamp(until)}"
        self.say(1, "observe", f"namespace {self.namespace} is in audit{how}")
        try:
            yield
        finally:
            if not self.enforced and self.annotated is None:
                self._take_back()

    def observe(self, for_s: float) -> Observations:
        """What is seen meanwhile; the world says which workloads there are, seen or not."""
        from sixfold.policy.suggest import Observations

        found = Observations()
        for endpoint in live_world(self.settings).endpoints.values():
            found.add_endpoint(endpoint)
        self._poll(
            for_s,
            found.add,
            lambda: f"{len(self._of_ours(found))} kinds of flow",
        )
        return found

    def _of_ours(self, found: Observations) -> list[object]:
        return [
            one
            for one in found.seen
            if self.namespace
            in (getattr(one.source, "namespace", ""), getattr(one.destination, "namespace", ""))
        ]

    def suggest(self, found: Observations) -> tuple[NetworkPolicy, ...]:
        from sixfold.cli.suggest import show
        from sixfold.policy.suggest import suggest

        config = live_world(self.settings).config
        suggestion = suggest(found, (config.pod_ipv4, config.pod_ipv6), self.namespace)
        if not suggestion.policies:
            raise SixfoldError(f"harden: namespace {self.namespace} has no workloads")
        self.say(2, "suggest", f"{len(suggestion.policies)} policies")
        for note in suggestion.notes:
            if LEFT_OUT not in note:
                click.echo(f"note: {note}", err=True)
        show(suggestion, "yaml")
        return suggestion.policies

    def diff(self, policies: tuple[NetworkPolicy, ...]) -> None:
        """Against what would be enforced without them."""
        from sixfold.cli.rows import cells
        from sixfold.policy.diff import compare
        from sixfold.policy.reach_parties import View

        before = self._enforced(live_world(self.settings))
        given = {f"{one.metadata.namespace}/{one.metadata.name}": one for one in policies}
        after = replace(before, policies={**before.policies, **given})
        found = compare(View(before), View(after))
        self.say(3, "diff", f"{len(found.opened)} opened, {len(found.closed)} closed")
        for sign, rows in (("+", found.opened), ("-", found.closed)):
            for row in rows:
                source, destination, ports = cells(row, wide=False)
                click.echo(f"    {sign} {source} → {destination}  {ports}", err=True)

    def _enforced(self, world: World) -> World:
        """As if nothing in the namespace was in audit."""
        return replace(
            world,
            audited=world.audited - {self.namespace},
            relaxations=tuple(
                one
                for one in world.relaxations
                if one.namespace != self.namespace or not one.enforcement
            ),
        )

    def enforce(self, policies: tuple[NetworkPolicy, ...]) -> None:
        """In one round: no flow that is allowed before and after meets a gap."""
        import msgspec

        objects = [msgspec.to_builtins(one) for one in policies]
        if self.annotated is not None:
            meta = self.annotated["metadata"]
            annotations = {**meta["annotations"], ENFORCEMENT: ENFORCE}
            meta = {"name": self.namespace, "labels": meta.get("labels") or {}}
            meta["annotations"] = annotations
            objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        else:
            objects.append(self._posture(None))
        with progress("enforcing"):
            self._apply(*objects)
        self.enforced, self.since = True, datetime.now(UTC)
        self._forget()
        self.say(4, "enforce", f"{len(policies)} policies, and no audit any more: in force")

    def watch(self, watch_s: float) -> int:
        """Print what policy of the namespace drops; returns how many kinds of flow that is."""
        dropped: dict[tuple[object, ...], str] = {}

        def take(record: dict[str, Any]) -> None:
            flow = record.get("flow", record)
            side = "source" if flow.get("traffic_direction") == "EGRESS" else "destination"
            if flow.get("verdict") != "DROPPED" or flow.get("drop_reason_desc") not in POLICY:
                return
            if flow.get(side, {}).get("namespace") != self.namespace:
                return
            l4: dict[str, Any] = next(iter(flow.get("l4", {}).values()), {})
            key = (
                flow["IP"]["source"],
                flow["IP"]["destination"],
                l4.get("destination_port"),
                next(iter(flow.get("l4", {})), ""),
            )
            if key not in dropped:
                dropped[key] = record.get("text", "")
                click.echo(f"    {coloured('DROPPED')} {dropped[key]}", err=True)

        self._poll(watch_s, take, lambda: f"{len(dropped)} kinds of flow dropped")
        last = (
            "nothing was dropped" if not dropped else f"{len(dropped)} kinds of flow were dropped"
        )
        self.say(5, "watch", last)
        return len(dropped)

    def roll_back(self) -> None:
        until = datetime.now(UTC) + ROLLED_BACK
        self._apply(self._posture(until, "something was dropped"))
        self.say(5, "rollback", f"in audit again, until {stamp(until)}; the policies stay")

    def _poll(
        self, for_s: float, take: Callable[[dict[str, Any]], None], said: Callable[[], str]
    ) -> None:
        """Every flow of the namespace since the last step, for so long; a line that moves, where
        there is a terminal."""
        from sixfold.cli.suggest import decoded

        started = time.monotonic()
        since = self.since
        while True:
            passed_s = time.monotonic() - started
            time.sleep(min(POLL_S, max(0.0, for_s - passed_s)))
            asked, until = max(self.since, since - OVERLAP), datetime.now(UTC)
            params = {"since": asked.isoformat(), "namespace": self.namespace}
            with self.client.stream("/v1/flows", params) as (_, lines):
                for record in decoded(lines, "flows"):
                    take(record)
            since = until
            if sys.stderr.isatty():
                click.echo(
                    f"\r    {min(passed_s, for_s):.0f} s of {for_s:g} s: {said()} ",
                    err=True,
                    nl=False,
                )
            if passed_s >= for_s:
                break
        if sys.stderr.isatty():
            click.echo("", err=True)
        else:
            click.echo(f"    {for_s:g} s: {said()}", err=True)

    # --- the Posture ------------------------------------------------------------------------------

    def _posture(self, until: datetime | None, why: str = "it is observed") -> dict[str, Any]:
        """The object with our relaxation until then, or without it."""
        found = self.client.objects("Posture")
        meta: dict[str, Any] = {"name": "default", "labels": dict(LABEL)}
        spec: dict[str, Any] = {}
        if found:
            spec = dict(found[0].get("spec") or {})
            kept = {"labels", "annotations", "name"}
            meta = {key: value for key, value in found[0]["metadata"].items() if key in kept}
        others = [it for it in spec.get("relaxations") or () if it["name"] != self.relaxation]
        if until is not None:
            others.append(
                {
                    "name": self.relaxation,
                    "namespace": self.namespace,
                    "until": stamp(until),
                    "reason": f"sixfold harden: {why}",
                    "enforcement": "audit",
                }
            )
        spec["relaxations"] = others
        return {"apiVersion": "sixfold.dev/v1", "kind": "Posture", "metadata": meta, "spec": spec}

    def _apply(self, *objects: dict[str, Any]) -> None:
        self.client.post("/v1/apply", {"objects": list(objects), "wait": False})

    def _take_back(self) -> None:
        self._apply(self._posture(None))
        self._forget()
        click.echo(f"namespace {self.namespace} is enforced as it was", err=True)

    def _forget(self) -> None:
        """The object, when it is ours and says nothing."""
        for raw in self.client.objects("Posture"):
            spec, labels = raw.get("spec") or {}, raw["metadata"].get("labels") or {}
            if (
                LABEL.items() <= labels.items()
                and not spec.get("relaxations")
                and "base" not in spec
            ):
                key = {"kind": "Posture", "namespace": "", "name": "default"}
                self.client.post("/v1/delete", {"keys": [key]})


def stamp(moment: datetime) -> str:
    """RFC 3339."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
