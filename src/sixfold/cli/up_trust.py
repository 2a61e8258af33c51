"""Options of ``sixfold up`` about identities, and who vouches for them."""

from __future__ import annotations

import click

from sixfold.cli.settings import together
from sixfold.cli.up_values import EndpointPlace, Issuer, TrustDomain, VaultAddress

trust_options = together(
    click.option(
        "--trust-domain",
        type=TrustDomain(),
        help="Of SPIFFE IDs; cluster.local.",
    ),
    click.option(
        "--svid-ttl",
        "svid_ttl_s",
        type=click.FloatRange(min=10, max=86_400),
        metavar="SECONDS",
        help="Lifetime of workloads' certificates; 3600.",
    ),
    click.option(
        "--connection-grace",
        "connection_grace_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="A connection in mTLS may outlive its certificates by that; 86400.",
    ),
    click.option(
        "--ca-passphrase-file",
        type=click.Path(),
        metavar="FILE",
        help='Encrypt the authorities\' keys; its first line, at every start; "" ends it.',
    ),
    click.option(
        "--ca-vault-address",
        type=VaultAddress(),
        metavar="URL",
        help="Have this Vault or OpenBao sign the intermediate, and its next ones; none ends that.",
    ),
    click.option("--ca-vault-mount", metavar="PATH", help="Of its PKI secrets engine; pki."),
    click.option(
        "--ca-vault-token-file",
        type=click.Path(),
        metavar="FILE",
        help="The token that it wants, which may sign-intermediate.",
    ),
    click.option(
        "--ca-vault-cacert", type=click.Path(), metavar="FILE", help="Verifies it: PEM; the web's."
    ),
    click.option(
        "--bundle-endpoint",
        type=EndpointPlace(),
        metavar="ADDRESS:PORT",
        help="Tell the trust bundle there, by https, to whoever asks; none ends that.",
    ),
    click.option(
        "--bundle-endpoint-pem",
        type=click.Path(),
        metavar="FILE",
        help="Its certificates and key, of the web's authorities; its own SVID.",
    ),
    click.option(
        "--jwt-issuer",
        type=Issuer(),
        metavar="URL",
        help="Be an OpenID provider at the bundle's endpoint: tokens say so; none ends that.",
    ),
)
