"""What the options of ``sixfold up`` take, and refuse."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import click

from sixfold.model.config import Config


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


class Place(click.ParamType[Any]):
    """Where the catalogue may be told; "none" is nowhere."""

    name = "ADDRESS:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from sixfold.agent.doors import listening_places

        try:
            if value != "none":
                listening_places(Config(catalog_listen=(value,)))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class MetricsPlace(click.ParamType[str]):
    """Where metrics may be told; "none" is nowhere."""

    name = "ADDRESS:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from sixfold.agent.doors import metrics_place

        try:
            if value != "none":
                metrics_place(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class EdgePlace(click.ParamType[str]):
    """An address of this host and a port; "none" is nowhere."""

    name = "ADDRESS:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        host, _, port = str(value).rpartition(":")
        if value == "none":
            return "none"
        try:
            address = ip_address(host.strip("[]"))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if address.is_unspecified or not port.isdecimal() or not 0 < int(port) < 65536:
            self.fail(f"{value!r}: give one address and a port, as 192.0.2.1:53", param, ctx)
        return str(value)


class EdgeZone(click.ParamType[str]):
    """A zone for the world; "none" is none."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from sixfold.manifest.names import dns_subdomain

        text = str(value).rstrip(".").lower()
        if wrong := dns_subdomain(text):
            self.fail(wrong, param, ctx)
        return text


class ResolverPlace(click.ParamType[str]):
    """Whom to ask for names: an address, and a port if it is not 53."""

    name = "IP"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from sixfold.serve.dns_upstream import parse_upstream

        try:
            parse_upstream(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class StubDomain(click.ParamType[str]):
    """A domain of the world and who answers for it; "none" is none."""

    name = "DOMAIN=IP,IP"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from sixfold.discovery.stubs import parse_stub
        from sixfold.manifest.names import dns_subdomain

        if value == "none":
            return str(value)
        domain, servers = parse_stub(str(value))
        if wrong := dns_subdomain(domain):
            self.fail(wrong, param, ctx)
        if not servers:
            self.fail(f"{value}: who answers for it? {domain}=192.0.2.53", param, ctx)
        for server in servers:
            ResolverPlace().convert(server, param, ctx)
        return f"{domain}={','.join(servers)}"


class TrustDomain(click.ParamType[str]):
    """Of SPIFFE IDs."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from sixfold.model.spiffe import check_trust_domain

        try:
            return check_trust_domain(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Alias(click.ParamType[str]):
    """A domain to browse; "none" is none."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from sixfold.manifest.names import dns_subdomain

        text = str(value).rstrip(".").lower()
        if wrong := dns_subdomain(text):
            self.fail(wrong, param, ctx)
        if text == "local" or text.endswith(".local"):
            self.fail(f"{text}: browsers ask only mDNS for .local; give another", param, ctx)
        return text


class EndpointPlace(click.ParamType[str]):
    """Where the trust bundle may be told; "none" is nowhere."""

    name = "ADDRESS:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from sixfold.agent.doors import endpoint_place

        try:
            if value != "none":
                endpoint_place(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Issuer(click.ParamType[str]):
    """An OpenID issuer: https, without query or fragment (OpenID Connect Discovery 1.0, 3)."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from urllib.parse import urlsplit

        found = urlsplit(str(value))
        plain = found.scheme == "https" and found.hostname and found.path in ("", "/")
        if value != "none" and (not plain or found.query or found.fragment):
            self.fail(f"{value!r}: give https://HOST or https://HOST:PORT", param, ctx)
        return str(value).rstrip("/")


class VaultAddress(click.ParamType[str]):
    """Where Vault or OpenBao is: by https, since tokens go there; http on this host only."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from urllib.parse import urlsplit

        text = str(value).rstrip("/")
        found = urlsplit(text)
        here = found.hostname in ("localhost", "127.0.0.1", "::1")
        if text != "none" and not (
            found.hostname and found.path == "" and (found.scheme == "https" or here)
        ):
            self.fail(f"{value!r}: give https://HOST or https://HOST:PORT", param, ctx)
        return text
