"""``sixfold up``: start the agent, in the foreground or detached."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli.apply import apply_body, read, report_ignored
from sixfold.cli.lockout import end_my_session_option, refuse_lockout
from sixfold.cli.output import progress
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.status import overview
from sixfold.cli.up_proxy import proxy_options
from sixfold.cli.up_trust import trust_options
from sixfold.cli.up_values import (
    Alias,
    EdgePlace,
    EdgeZone,
    MetricsPlace,
    Network,
    Place,
    ResolverPlace,
    StubDomain,
)
from sixfold.cli.world import node_labels
from sixfold.discovery.stubs import stubs_of
from sixfold.errors import HostError, SixfoldError, UnavailableError
from sixfold.model.config import Config

if TYPE_CHECKING:
    from sixfold.host.paths import Paths
    from sixfold.manifest import Loaded, Manifests

READY = b"ready"
ENDED_BY_NONE = (
    "dns_sd_domain",
    "metrics_address",
    "bundle_endpoint",
    "jwt_issuer",
    "ca_vault_address",
)
SETTLE_TRIES, SETTLE_PERIOD_S = 15, 0.2  # a pod may just be restarting
LOG_BYTES_MAX = 16 << 20  # a longer one is put aside at the next start
LOG_TAIL = 20  # lines shown when a detached agent dies before it is ready


@click.command(
    short_help="Start Sixfold on this host, and apply manifests.",
    epilog=examples(
        """
sudo sixfold up                                  foreground; Ctrl-C ends the agent only
sudo sixfold up -f examples/basecamp --detach    returns when everything is in force
sudo sixfold up --posture kubernetes --pod-cidr 10.99.0.0/16
"""
    ),
)
@click.option(
    "-f", "--filename", "filenames", multiple=True, metavar="FILE|DIR|-", help="Apply these."
)
@click.option("-d", "--detach", is_flag=True, help="Go to the background when ready.")
@click.option(
    "--posture",
    type=click.Choice(["zero-trust", "kubernetes"]),
    help="What no rule allows: denied, or upstream's default; zero-trust.",
)
@click.option(
    "--audit/--enforce",
    default=None,
    help="What policy denies passes and is told as AUDIT; --enforce ends that.",
)
@click.option(
    "--trace-calls/--no-trace-calls",
    default=None,
    help="Tell system calls of pods that meet a read-only file system, or no process, too: "
    "every one of the host's costs 0.1 µs more.",
)
@click.option(
    "--mtls",
    type=click.Choice(["strict", "permissive", "disabled"]),
    help="TCP between pods: only through mTLS, also plaintext, or as it is; strict, "
    "under --posture kubernetes disabled.",
)
@click.option("--node", metavar="NAME", help="This node's name; the host's name.")
@click.option(
    "--devices",
    multiple=True,
    metavar="NAME",
    help="Uplinks, eth+ for all of that beginning; those with a default route or an address.",
)
@click.option(
    "--node-labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=node_labels,
    help="Of this node, for nodeSelector: several, or one list with commas.",
)
@click.option("--mtu", type=click.IntRange(1280, 65535), help="Of pod interfaces; as the uplink's.")
@click.option("--pod-cidr", "pod_ipv4", type=Network(4), help="Pod addresses; 10.244.0.0/16.")
@click.option("--pod-cidr6", "pod_ipv6", type=Network(6), help="fd00:5f:244::/64.")
@click.option("--service-cidr", "service_ipv4", type=Network(4), help="10.96.0.0/16.")
@click.option("--service-cidr6", "service_ipv6", type=Network(6), help="fd00:5f:96::/112.")
@click.option(
    "--ip-reuse-grace",
    "ip_reuse_grace_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Rest of an address before its next owner; 300.",
)
@click.option("--cluster-domain", metavar="NAME", help="Of DNS names; cluster.local.")
@click.option(
    "--dns-upstream",
    "dns_upstreams",
    multiple=True,
    type=ResolverPlace(),
    metavar="IP",
    help="Instead of the host's resolvers.",
)
@click.option(
    "--dns-stub-domain",
    "dns_stub_domains",
    multiple=True,
    type=StubDomain(),
    metavar="DOMAIN=IP,IP",
    help="Names below DOMAIN are asked of these, and of nobody else; none ends that.",
)
@click.option(
    "--dns-pods",
    type=click.Choice(["disabled", "insecure", "verified"]),
    help="Names like 10-244-0-3.shop.pod.cluster.local: none, any, or of pods that are there.",
)
@click.option(
    "--dns-sd-domain",
    type=Alias(),
    metavar="NAME",
    help="List services there for browsers (DNS-SD), as sixfold.internal; none ends that.",
)
@click.option(
    "--dns-edge",
    multiple=True,
    type=EdgePlace(),
    metavar="ADDRESS:PORT",
    help="Answer global names to the world there, as 192.0.2.1:53; none ends that.",
)
@click.option(
    "--dns-edge-zone",
    "dns_edge_zones",
    multiple=True,
    type=EdgeZone(),
    metavar="NAME",
    help="Answer there for this zone, too: services with an address outside; none ends that.",
)
@click.option(
    "--catalog-listen",
    "catalog_listen",
    multiple=True,
    type=Place(),
    metavar="ADDRESS:PORT",
    help="Tell the catalogue (Consul's HTTP API, Prometheus http_sd) over TCP, too: at an "
    "address of loopback, or at node:PORT to pods; none ends that.",
)
@click.option(
    "--metrics-address",
    type=MetricsPlace(),
    metavar="ADDRESS:PORT",
    help="Tell metrics to Prometheus there, too: at an address of loopback; none ends that.",
)
@trust_options
@proxy_options
@click.option(
    "--fqdn-min-ttl",
    "fqdn_min_ttl_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="For how long a resolved name is open at least; 10.",
)
@click.option("--timeout", "timeout_s", type=float, default=120.0, help="Seconds until ready.")
@end_my_session_option
@click.option("--ready-fd", type=int, hidden=True)  # how a detached agent reports to its parent
@shared()
@pass_settings
@click.pass_context
def command(
    ctx: click.Context,
    settings: Settings,
    /,
    filenames: tuple[str, ...],
    detach: bool,
    timeout_s: float,
    ready_fd: int | None,
    end_my_session: bool,
    **options: Any,
) -> None:
    """Start Sixfold on this host, and apply manifests.

    Settings are kept in the state directory: the next start needs no flags. What ran before
    runs on, and is adopted. "up" reports ready when everything applied is in force.
    """
    manifests = None
    if filenames:
        manifests = read(filenames, settings.namespace_or_default, runnable=True)
        report_ignored(manifests)
    paths = settings.paths
    if os.geteuid() != 0:
        raise HostError("sixfold up: needs root; use sudo")
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if manifests and not end_my_session:
        from sixfold.manifest import offline

        known = manifests
        refuse_lockout(known.objects, lambda: offline(known, configuration(paths, given)))
    if detach:
        argv = _argv(ctx, settings.paths.instance, given, timeout_s)
        start_detached(paths, argv)
        if manifests:
            send(settings, manifests, timeout_s)
        status = _final_status(settings)
        for line in overview(status)[:-1]:
            click.echo(line)
        if missing := not_in_force(status):
            raise UnavailableError(f"up: not in force after {timeout_s:g} s: {missing}")
        return
    report = _Report(ready_fd) if ready_fd is not None else None
    objects = list(manifests.objects) if manifests else []
    try:
        code = run_here(configuration(paths, given), paths, objects, timeout_s, report)
    except (SixfoldError, OSError) as error:
        if report:
            report.say(str(error).encode())
        raise
    ctx.exit(code)


def not_in_force(status: dict[str, Any]) -> str:
    """What was asked for and is not so yet; "" when everything is."""
    agent = status["agent"]
    missing = [*status.get("pods", {}).get("unsettled", ()), agent.get("problem", "")]
    if agent["applied"] < agent["generation"]:
        missing.append(f"generation {agent['generation']}, applied is {agent['applied']}")
    return "; ".join(filter(None, missing))


def _final_status(settings: Settings) -> dict[str, Any]:
    """The status once all is in force; else the last one, after a moment for passing changes."""
    for _ in range(SETTLE_TRIES):
        status: dict[str, Any] = settings.client.get("/v1/status")
        if not not_in_force(status):
            break
        time.sleep(SETTLE_PERIOD_S)
    return status


def configuration(paths: Paths, given: dict[str, Any]) -> Config:
    """What the last start was told, changed by what this one is told."""
    from sixfold.agent.settings import stored_config

    before = stored_config(paths) or Config(node=platform.node() or "localhost")
    for name in ENDED_BY_NONE:
        if given.get(name) == "none":
            given = {**given, name: ""}
    for name in ("catalog_listen", "dns_edge", "dns_edge_zones", "dns_stub_domains"):
        if "none" in given.get(name, ()):
            given = {**given, name: ()}
    config = dataclasses.replace(before, instance=paths.instance, **given)
    if config.dns_edge_zones and not config.dns_edge:
        message = "nobody can ask for it; say where the world asks: --dns-edge ADDRESS:PORT"
        raise click.BadParameter(message, param_hint="--dns-edge-zone")
    if config.jwt_issuer and not config.bundle_endpoint:
        message = "nobody can ask it for keys; say where: --bundle-endpoint ADDRESS:PORT"
        raise click.BadParameter(message, param_hint="--jwt-issuer")
    for domain in stubs_of(config.dns_stub_domains):
        if f".{domain}".endswith(f".{config.cluster_domain.lower()}"):
            message = f"{domain}: is ours to answer, its servers would never be asked"
            raise click.BadParameter(message, param_hint="--dns-stub-domain")
    ours, alias = f".{config.cluster_domain.lower()}", f".{config.dns_sd_domain}"
    if config.dns_sd_domain and (ours.endswith(alias) or alias.endswith(ours)):
        message = f"{config.dns_sd_domain}: overlaps with the cluster domain; give another"
        raise click.BadParameter(message, param_hint="--dns-sd-domain")
    return config


def run_here(
    config: Config,
    paths: Paths,
    objects: list[Loaded],
    timeout_s: float,
    report: _Report | None,
) -> int:
    """Be the agent until told to stop."""
    import logging

    from sixfold.agent.main import run

    def ready(problem: str) -> None:
        if report:
            report.say(READY)  # whoever waits looks for itself
            return
        how = f"running, but {problem}" if problem else "ready"
        click.echo(f"sixfold {config.instance}: {how} (pid {os.getpid()}); Ctrl-C ends it")

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for library in ("uvicorn", "grpclib"):  # which tell every request
        logging.getLogger(library).setLevel(logging.WARNING)
    code = run(config, paths, objects, ready, ready_timeout_s=timeout_s)
    click.echo("agent stopped; workloads go on, 'sixfold down' ends them", err=True)
    return code


class _Report:
    """The pipe to whoever waits for a detached agent: one word, then it is closed."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # workloads must not keep it open
        self._fd: int | None = fd

    def say(self, word: bytes) -> None:
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more
                os.write(self._fd, word)
            os.close(self._fd)
            self._fd = None


def start_detached(paths: Paths, argv: list[str]) -> None:
    """Run the command line as a daemon, and wait for its word: ready, or what went wrong."""
    paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = paths.state / "agent.log"
    begun = _make_room(log)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.set_inheritable(writer, True)
        _become_daemon(log)
        # A fresh interpreter: the agent must not carry our manifests in its memory.
        os.execv(sys.executable, [*argv, "--ready-fd", str(writer)])
    os.close(writer)
    os.waitpid(child, 0)
    with progress("starting"), os.fdopen(reader, "rb") as pipe:
        word = pipe.read()
    if word == READY:
        return
    if word:
        raise SixfoldError(word.decode(errors="replace"))
    lines = log.read_bytes()[begun:].decode(errors="replace").splitlines()[-LOG_TAIL:]
    raise SixfoldError(
        "\n".join([f"{log}: agent ended before it was ready; its last words:", *lines])
    )


def _make_room(log: Path) -> int:
    """Put a log that has grown big aside; returns where the lines of this start will begin."""
    size = log.stat().st_size if log.exists() else 0
    if size < LOG_BYTES_MAX:
        return size
    log.replace(log.with_suffix(".log.1"))
    return 0


def _become_daemon(log: Path) -> None:
    """Leave the terminal, the session and the standard streams behind; runs in the child."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)


def _argv(ctx: click.Context, instance: str, given: dict[str, Any], timeout_s: float) -> list[str]:
    """The command line that starts the same agent in the foreground."""
    argv = [sys.executable, "-m", "sixfold.cli", "--instance", instance, "up"]
    argv += ["--timeout", str(timeout_s)]
    for parameter in ctx.command.params:
        value = given.get(parameter.name or "", ())
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, bool):
                argv.append((parameter.opts if each else parameter.secondary_opts)[0])
            else:
                argv += [parameter.opts[0], str(each)]
    return argv


def send(settings: Settings, manifests: Manifests, timeout_s: float) -> None:
    """Apply, and wait until all of it is in force."""
    with progress("applying"):
        settings.client.post("/v1/apply", apply_body(manifests, wait=True, timeout_s=timeout_s))
