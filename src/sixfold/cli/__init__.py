"""The command line: one file per verb, imported when it is used.

``main`` is what the ``sixfold`` script calls; ``root`` knows the verbs.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns normally."""
    import gc

    # What is imported and planned stays: scanned at the default pace it costs a tenth of every
    # start, and more than it took to make at 1,000 workloads.
    gc.set_threshold(200_000, 50, 100)
    from sixfold.cli.root import cli

    cli(prog_name="sixfold")
