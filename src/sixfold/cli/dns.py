"""``sixfold dns``."""

from __future__ import annotations

from types import MappingProxyType

import click

from sixfold.cli.output import print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.errors import SixfoldError

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

OUTSIDE = MappingProxyType(
    {
        "zone": "NS and glue, for the zone above",
        "unbound": "a stub zone",
        "bind": "a static-stub zone",
        "knot-resolver": "a policy",
    }
)


@click.group(
    short_help="Let this host, and its resolver, find the names of workloads.",
    epilog=examples(
        "sixfold dns config systemd-resolved\nsixfold dns config unbound\n"
        "sixfold dns delegation zone"
    ),
)
def command() -> None:
    """Let this host, and its resolver, find the names of workloads; and resolvers outside."""


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


@command.command(
    epilog=examples(
        """
sudo sixfold up --dns-edge 192.0.2.1:53 --dns-edge-zone k8s.example.org
sixfold dns delegation zone                  records for example.org
sixfold dns delegation unbound
"""
    )
)
@click.argument("server", type=click.Choice([*OUTSIDE]), default="zone")
@shared(outputs=ANSWERS)
@pass_settings
def delegation(settings: Settings, server: str) -> None:
    """Print what makes a resolver outside ask the edge for the zones that are told there."""
    from ipaddress import ip_address

    from sixfold.discovery.forwarding import delegation as written

    about = settings.client.get("/v1/status")["agent"]
    if not about["edge_zones"]:
        raise SixfoldError(
            "no zone is told to the world; say which: up --dns-edge ADDRESS:PORT "
            "--dns-edge-zone NAME"
        )
    places = [place.rpartition(":") for place in about["edge"]]
    edges = [(ip_address(host.strip("[]")), int(port)) for host, _, port in places]
    lines = written(server, about["edge_zones"], edges)
    if settings.structured:
        print_structured({"zones": about["edge_zones"], "lines": lines}, settings.output)
        return
    for line in lines:
        click.echo(line)
