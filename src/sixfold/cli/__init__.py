"""The command line: one file per verb, imported when it is used.

``main`` is what the ``sixfold`` script calls; ``root`` knows the verbs.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns normally."""
    from sixfold.cli.root import cli

    cli(prog_name="sixfold")
