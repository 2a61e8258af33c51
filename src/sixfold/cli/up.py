"""``sixfold up``: start the agent, in the foreground or detached."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli.apply import read, report_ignored
from sixfold.cli.output import progress
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.status import overview
from sixfold.errors import HostError, ManifestError, SixfoldError
from sixfold.model.config import Config

if TYPE_CHECKING:
    from sixfold.host.paths import Paths
    from sixfold.manifest import Loaded

READY = b"ready"
LOG_TAIL = 20  # lines shown when a detached agent dies before it is ready


class Network(click.ParamType[Any]):
    """A CIDR block of one family."""

    name = "CIDR"

    def __init__(self, version: int) -> None:
        self._version = version

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            network = ip_network(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if network.version != self._version:
            self.fail(f"{value!r}: give an IPv{self._version} block", param, ctx)
        return network


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
@click.option("-f", "--filename", "filenames", multiple=True, metavar="FILE|DIR|-")
@click.option("-d", "--detach", is_flag=True, help="Go to the background when ready.")
@click.option("--posture", type=click.Choice(["zero-trust", "kubernetes"]))
@click.option("--node", metavar="NAME", help="This node's name; the host's name.")
@click.option("--mtu", type=click.IntRange(1280, 65535), help="Of pod interfaces; 1500.")
@click.option("--pod-cidr", "pod_ipv4", type=Network(4), help="Pod addresses; 10.244.0.0/16.")
@click.option("--pod-cidr6", "pod_ipv6", type=Network(6))
@click.option("--service-cidr", "service_ipv4", type=Network(4), help="10.96.0.0/16.")
@click.option("--service-cidr6", "service_ipv6", type=Network(6))
@click.option("--cluster-domain", metavar="NAME", help="cluster.local.")
@click.option("--dns-upstream", "dns_upstreams", multiple=True, metavar="IP")
@click.option("--timeout", "timeout_s", type=float, default=120.0, help="Seconds until ready.")
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
    **options: Any,
) -> None:
    """Start Sixfold on this host, and apply manifests.

    Settings are kept in the state directory: the next start needs no flags. What ran before
    runs on, and is adopted. "up" reports ready when everything applied is in force.
    """
    manifests = read(filenames, settings.namespace_or_default, runnable=True) if filenames else None
    if manifests:
        report_ignored(manifests)
    objects = list(manifests.objects) if manifests else []
    paths = settings.paths
    if os.geteuid() != 0:
        raise HostError("sixfold up: needs root; use sudo")
    config = configuration(paths, options)
    start = detached if detach else foreground
    ctx.exit(start(settings, config, paths, objects, timeout_s))


def configuration(paths: Paths, options: dict[str, Any]) -> Config:
    """What the last start was told, changed by what this one is told."""
    from sixfold.agent.main import stored_config

    given = {name: value for name, value in options.items() if value not in (None, ())}
    before = stored_config(paths) or Config(node=platform.node() or "localhost")
    return dataclasses.replace(before, instance=paths.instance, **given)


def foreground(
    settings: Settings, config: Config, paths: Paths, objects: list[Loaded], timeout_s: float
) -> int:
    from sixfold.agent.main import run

    def ready() -> None:
        click.echo(f"sixfold {config.instance}: ready (pid {os.getpid()}); Ctrl-C ends the agent")

    _log_to_stderr()
    code = run(config, paths, objects, ready, ready_timeout_s=timeout_s)
    click.echo("agent stopped; workloads go on, 'sixfold down' ends them", err=True)
    return code


def detached(
    settings: Settings, config: Config, paths: Paths, objects: list[Loaded], timeout_s: float
) -> int:
    """Fork twice, run there, and wait for its word: ready, or what went wrong."""
    paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = paths.state / "agent.log"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_daemon(log)
        os._exit(_speak(writer, config, paths, objects, timeout_s))
    os.close(writer)
    os.waitpid(child, 0)
    with progress("starting"):
        word = _read_all(reader)
    if word == READY:
        for line in overview(settings.client.get("/v1/status"))[:-1]:
            click.echo(line)
        return 0
    if word:
        click.echo(word.decode(errors="replace"), err=True)
    else:
        click.echo(f"error: {log}: agent ended before it was ready; its last words:", err=True)
        for line in log.read_text(errors="replace").splitlines()[-LOG_TAIL:]:
            click.echo(f"  {line}", err=True)
    return 1


def _become_daemon(log: Path) -> None:
    """Leave the terminal, the session and the standard streams behind; runs in the child."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o022)
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(out)


def _speak(
    writer: int, config: Config, paths: Paths, objects: list[Loaded], timeout_s: float
) -> int:
    """Run the agent; the pipe carries one word to whoever waits, and is closed by it."""
    from sixfold.agent.main import run

    said = False

    def say(word: bytes) -> None:
        nonlocal said
        if not said:
            said = True
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more
                os.write(writer, word)
            os.close(writer)

    _log_to_stderr()
    try:
        return run(config, paths, objects, lambda: say(READY), ready_timeout_s=timeout_s)
    except ManifestError as error:
        say(str(error).encode())
    except SixfoldError as error:
        say("\n".join(f"error: {line}" for line in str(error).splitlines()).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
    return 1


def _read_all(reader: int) -> bytes:
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read()


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
