"""Options of ``sixfold up`` about the mesh's proxies."""

from __future__ import annotations

import click

from sixfold.cli.settings import together

proxy_options = together(
    click.option(
        "--placement",
        type=click.Choice(["node", "workload"]),
        help="Of the mesh's proxy: one for all pods, or one for each that starts from now on; "
        "node. sixfold.dev/placement on a Namespace or pod says otherwise.",
    ),
    click.option(
        "--proxy-concurrency",
        type=click.IntRange(min=0, max=128),
        metavar="THREADS",
        help="Of a proxy of the mesh; 0: the node's has one for each CPU, a pod's own has one.",
    ),
    click.option(
        "--proxy-drain",
        "proxy_drain_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="So long a proxy that was replaced may keep what is open; 0: until its end.",
    ),
)
