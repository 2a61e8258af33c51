"""``sixfold completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sixfold.cli.settings import examples


@click.command(
    short_help="Print the completion script for a shell.",
    epilog=examples(
        """
source <(sixfold completion bash)
sixfold completion bash > /etc/bash_completion.d/sixfold
sixfold completion zsh > ~/.zfunc/_sixfold
sixfold completion fish > ~/.config/fish/completions/sixfold.fish
"""
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    complete = get_completion_class(shell)
    assert complete is not None
    script = complete(ctx.find_root().command, {}, "sixfold", "_SIXFOLD_COMPLETE")
    # Not source(): that runs bash to learn its version, and the user's shell need not be here.
    click.echo(script.source_template % script.source_vars())
