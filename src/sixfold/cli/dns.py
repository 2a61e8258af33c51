"""``sixfold dns``."""

from __future__ import annotations

from types import MappingProxyType

import click

from sixfold.cli.output import print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared

SERVERS = MappingProxyType(
    {
        "systemd-resolved": "resolvectl commands",
        "dnsmasq": "a file for dnsmasq.d",
        "unbound": "a file for unbound.conf.d",
        "bind": "forward zones",
        "coredns": "a block of a Corefile",
        "resolv.conf": "a nameserver line",
    }
)


@click.group(
    short_help="Let this host, and its resolver, find the names of workloads.",
    epilog=examples("sixfold dns config systemd-resolved\nsixfold dns config unbound"),
)
def command() -> None:
    """Let this host, and its resolver, find the names of workloads."""


@command.command(
    epilog=examples(
        """
sudo sixfold dns config systemd-resolved | sudo sh
sixfold dns config unbound | sudo tee /etc/unbound/unbound.conf.d/sixfold.conf
"""
    )
)
@click.argument("server", type=click.Choice([*SERVERS]), default="systemd-resolved")
@shared(outputs=ANSWERS)
@pass_settings
def config(settings: Settings, server: str) -> None:
    """Print what makes SERVER ask Sixfold for its zones, and only for those.

    Without it, programs on the host ask 169.254.20.10 by themselves (dig @169.254.20.10 …).
    """
    from sixfold.discovery.forwarding import configuration

    about = settings.client.get("/v1/status")["agent"]
    lines = configuration(server, about["zones"], about["device"])
    if settings.structured:
        print_structured({"zones": about["zones"], "lines": lines}, settings.output)
        return
    for line in lines:
        click.echo(line)
