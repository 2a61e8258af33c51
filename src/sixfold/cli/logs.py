"""``sixfold logs``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

import click

from sixfold.cli import completer
from sixfold.cli.client import Client, path_of
from sixfold.cli.pods import pick_pod
from sixfold.cli.selector import parse_selector, selects
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.errors import SixfoldError
from sixfold.observe.filter import duration_s

SELECTED_TAIL = "10"  # lines of each pod chosen by labels: kubectl's default


@click.command(
    short_help="Print the logs of a pod.",
    epilog=examples(
        """
sixfold logs web-0 -n shop
sixfold logs -f deploy/web --tail 20
sixfold logs web-0 -c sidecar --since 5m --timestamps
sixfold logs web-0 -p                     of the container before its last restart
sixfold logs -l app=web --all-containers --prefix -f
"""
    ),
)
@click.argument("pod", metavar="[POD|KIND/NAME]", required=False, shell_complete=completer.pods)
@click.argument("container_argument", metavar="[CONTAINER]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
@click.option("--tail", type=int, help="Only the last lines; with -l 10 unless told.")
@click.option("--since", metavar="DURATION", help="Only younger than 5s, 2m, 3h.")
@click.option("-p", "--previous", is_flag=True, help="Of the container before its last restart.")
@click.option(
    "-c",
    "--container",
    default="",
    metavar="NAME",
    help="Its first container, unless told.",
    shell_complete=completer.containers,
)
@click.option("--all-containers", is_flag=True, help="Of init containers and sidecars, too.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Of all pods such as app=web.")
@click.option("--prefix", is_flag=True, help="Pod and container before each line.")
@click.option("--timestamps", is_flag=True, help="When each line was printed, before it.")
@shared()
@pass_settings
def command(
    settings: Settings,
    pod: str | None,
    container_argument: str | None,
    follow: bool,
    tail: int | None,
    since: str | None,
    previous: bool,
    container: str,
    all_containers: bool,
    selector: str,
    prefix: bool,
    timestamps: bool,
) -> None:
    """Print the logs of a pod, of one pod of a workload, or of all pods with a label."""
    container = container or container_argument or ""
    if bool(pod) == bool(selector):
        raise click.UsageError("give either POD, or -l LABELS")
    if container and all_containers:
        raise click.UsageError("--all-containers is all of them; leave -c out")
    params: dict[str, str] = {"tail": SELECTED_TAIL} if selector else {}
    if tail is not None:
        params.pop("tail", None)
        params |= {"tail": str(tail)} if tail >= 0 else {}  # kubectl: -1 is all
    if since is not None:
        if (seconds := duration_s(since)) is None:
            raise click.UsageError(f"--since {since!r}: give 5s, 2m, 3h")
        params["since"] = str(seconds)
    flags = {"follow": follow, "previous": previous, "timestamps": timestamps}
    params |= {name: "true" for name, given in flags.items() if given}
    client = settings.client
    if pod:
        namespace, name = pick_pod(client, settings.namespace_or_default, pod)
        pods = client.objects("Pod", namespace, name) if all_containers else []
        names = [(namespace, name, container)]
    else:
        pods = _selected(client, settings.namespace_or_default, selector)
        names = [(*_named(item), container) for item in pods]
    if all_containers:
        names = [(*_named(item), name) for item in pods for name in _containers(item)]
    streams = [Stream(client, *each, params, prefix) for each in names]
    if follow and len(streams) > 1:
        _together(streams)
    else:
        for stream in streams:
            stream.copy()


@dataclass(frozen=True, slots=True)
class Stream:
    """The log of one container, on its way to standard output."""

    client: Client
    namespace: str
    pod: str
    container: str  # "": the first
    params: Mapping[str, str]
    prefixed: bool

    def copy(self, lock: Lock | None = None) -> None:
        start = f"[pod/{self.pod}{'/' * bool(self.container)}{self.container}] ".encode()
        params = {**self.params, **({"container": self.container} if self.container else {})}
        with self.client.stream(path_of("pods", self.namespace, self.pod, "log"), params) as (
            _,
            lines,
        ):
            for line in lines:
                with lock or Lock():
                    sys.stdout.buffer.write(start + line if self.prefixed else line)
                    sys.stdout.buffer.flush()


def _together(streams: Sequence[Stream]) -> None:
    """All at once, line by line; the first that breaks is told when all have ended."""
    lock, errors = Lock(), list[SixfoldError]()

    def copy(stream: Stream) -> None:
        try:
            stream.copy(lock)
        except SixfoldError as error:
            errors.append(error)

    threads = [Thread(target=copy, args=(stream,), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _selected(client: Client, namespace: str, selector: str) -> list[dict[str, Any]]:
    wanted = parse_selector(selector)
    pods = [pod for pod in client.objects("Pod", namespace) if selects(wanted, pod)]
    if not pods:
        click.echo(f"No resources found in {namespace} namespace.", err=True)
    return pods


def _named(pod: Mapping[str, Any]) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _containers(pod: Mapping[str, Any]) -> Iterator[str]:
    for group in ("initContainers", "containers"):
        for container in pod["spec"].get(group) or ():
            yield container["name"]
