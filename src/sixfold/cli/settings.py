"""Options that every command shares; they may stand before or after the command's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sixfold.cli.client import Client
    from sixfold.host.paths import Paths

Command = TypeVar("Command", bound=Callable[..., Any])
OUTPUTS = ("table", "wide", "json", "yaml", "name")  # of objects
ANSWERS = ("table", "wide", "json", "yaml")  # of anything else; wide has no more to say


@dataclass(slots=True)
class Settings:
    """What the shared options said; the later one wins."""

    namespace: str | None = None  # None: not given
    all_namespaces: bool = False
    instance: str = "sixfold"
    output_choice: str | None = None

    @property
    def output(self) -> str:
        return self.output_choice or "table"

    @property
    def structured(self) -> bool:
        """Whether a program is to read it."""
        return self.output in ("json", "yaml")

    @property
    def namespace_or_default(self) -> str:
        return self.namespace or "default"

    @property
    def paths(self) -> Paths:
        from sixfold.host.paths import Paths

        return Paths(self.instance)

    @property
    def client(self) -> Client:
        """A client of this instance's agent."""
        from sixfold.cli.client import Client

        return Client(self.paths.api_socket)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator of several options; help shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is None:
        return
    settings = ctx.find_root().ensure_object(Settings)
    assert parameter.name
    setattr(settings, parameter.name, value)


def _option(*names: str, **attributes: Any) -> Callable[[Command], Command]:
    return click.option(*names, expose_value=False, callback=_store, default=None, **attributes)


def _namespaces(ctx: click.Context, parameter: click.Parameter, prefix: str) -> Any:
    from sixfold.cli import completer  # it needs our Settings

    return completer.namespaces(ctx, parameter, prefix)


namespace_option = _option(
    "-n",
    "--namespace",
    metavar="NAME",
    help="Namespace to work in.",
    shell_complete=_namespaces,
)
all_namespaces_option = _option("-A", "--all-namespaces", is_flag=True, help="Every namespace.")
# The environment is read at the root only: there it cannot outdo a flag given before the verb.
instance_option = _option("--instance", metavar="NAME", help="Which Sixfold of this host.")
root_instance_option = _option(
    "--instance",
    metavar="NAME",
    envvar="SIXFOLD_INSTANCE",
    show_envvar=True,
    help="Which Sixfold of this host.",
)


class Output(click.Choice[str]):
    """Formats of the output; says what to do instead of kubectl's templates."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        word = str(value).partition("=")[0]
        if word in ("jsonpath", "go-template", "custom-columns", "jsonpath-as-json"):
            self.fail(f"{word}: not here; use -o json with jq", param, ctx)
        return super().convert(value, param, ctx)


def output_option(choices: Sequence[str] = OUTPUTS) -> Callable[[Command], Command]:
    """``-o``; commands that print something else than objects offer other formats."""
    names = ("-o", "--output", "output_choice")
    return _option(*names, type=Output(list(choices)), help="Format of the output.")


def global_options(command: Command) -> Command:
    """All shared options, for the root."""
    output = output_option((*OUTPUTS, "compact"))
    for option in (output, root_instance_option, all_namespaces_option, namespace_option):
        command = option(command)
    return command


def shared(
    *, outputs: Sequence[str] = (), everywhere: bool = False
) -> Callable[[Command], Command]:
    """The shared options of one verb: instance and namespace always, others where they fit."""

    def decorate(command: Command) -> Command:
        command = instance_option(command)
        if outputs:
            command = output_option(outputs)(command)
        if everywhere:
            command = all_namespaces_option(command)
        return namespace_option(command)

    return decorate


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def examples(text: str) -> str:
    """Lines for the end of a command's help, kept as written."""
    lines = "\n".join(f"  {line}" for line in text.strip().splitlines())
    return f"\b\nExamples:\n{lines}"
