"""``sixfold ca``: authorities of the trust domain, and their succession."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sixfold.cli.output import duration, print_structured, print_table
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.errors import SixfoldError

JWT = click.option("--jwt", "kind", flag_value="jwt", help="Of tokens, instead of certificates.")
X509 = click.option("--x509", "kind", flag_value="x509", default=True, hidden=True)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(
    short_help="Show and replace who signs identities.",
    epilog=examples(
        """
sudo sixfold ca show
sudo sixfold ca rotate                      a new root, without a connection lost
sudo sixfold ca take-root /media/usb/root.key
sudo sixfold ca renew --root-key /media/usb/root.key
"""
    ),
)
def command() -> None:
    """Show and replace who signs identities: roots, intermediates, keys of tokens.

    Words are those of SPIRE's localauthority: a prepared authority is trusted and signs nothing
    yet, the active one signs, an old one is trusted until it is revoked.
    """


@command.command(epilog=examples("sudo sixfold ca show\nsudo sixfold ca show -o json"))
@shared(outputs=ANSWERS)
@pass_settings
def show(settings: Settings) -> None:
    """Show authorities: which signs, which are trusted besides, and until when."""
    _print(settings, settings.client.get("/v1/authorities"))


@command.command(epilog=examples("sudo sixfold ca federated"))
@shared(outputs=ANSWERS)
@pass_settings
def federated(settings: Settings) -> None:
    """Show other trust domains whose identities are known, and when they were last heard."""
    found = settings.client.get("/v1/authorities")["federated"]
    if settings.structured:
        print_structured({"federated": found}, settings.output)
        return
    now_s = datetime.now(UTC).timestamp()
    rows = [
        [
            one["trust_domain"],
            one["url"],
            str(one["roots"]),
            f"{duration(now_s - one['heard_s'])} ago" if one["heard_s"] else "never",
            one["problem"],
        ]
        for one in found
    ]
    print_table(["TRUST DOMAIN", "ENDPOINT URL", "ROOTS", "HEARD", "PROBLEM"], rows)


@command.command(epilog=examples("sudo sixfold ca rotate\nsudo sixfold ca rotate --overlap 900"))
@JWT
@X509
@click.option(
    "--overlap",
    "overlap_s",
    type=click.FloatRange(min=0),
    default=30.0,
    metavar="SECONDS",
    help="So long the new one is trusted before it signs; 30.",
)
@shared(outputs=ANSWERS)
@pass_settings
def rotate(settings: Settings, kind: str, overlap_s: float) -> None:
    """Replace the root, by the clock: prepare, activate, and revoke the old one.

    The old root leaves when the last certificate that it stands behind has run out, and the grace
    of connections.
    """
    _print(settings, _post(settings, "rotate", kind=kind, overlap_s=overlap_s))


@command.command(epilog=examples("sudo sixfold ca prepare"))
@JWT
@X509
@shared(outputs=ANSWERS)
@pass_settings
def prepare(settings: Settings, kind: str) -> None:
    """Make another authority: trusted from now on, signing nothing yet."""
    _print(settings, _post(settings, "prepare", kind=kind))


@command.command(epilog=examples("sudo sixfold ca activate"))
@click.argument("id_", metavar="[ID]", default="")
@JWT
@X509
@shared(outputs=ANSWERS)
@pass_settings
def activate(settings: Settings, id_: str, kind: str) -> None:
    """Have the prepared authority sign; who did so is old."""
    _print(settings, _post(settings, "activate", kind=kind, id=id_))


@command.command(epilog=examples("sudo sixfold ca taint"))
@click.argument("id_", metavar="[ID]", default="")
@JWT
@X509
@shared(outputs=ANSWERS)
@pass_settings
def taint(settings: Settings, id_: str, kind: str) -> None:
    """Replace at once what an old authority signed."""
    _print(settings, _post(settings, "taint", kind=kind, id=id_))


@command.command(epilog=examples("sudo sixfold ca revoke"))
@click.argument("id_", metavar="[ID]", default="")
@JWT
@X509
@shared(outputs=ANSWERS)
@pass_settings
def revoke(settings: Settings, id_: str, kind: str) -> None:
    """Trust an old authority no more, and cut what still rests on it."""
    _print(settings, _post(settings, "revoke", kind=kind, id=id_))


@command.command(epilog=examples("sudo sixfold ca renew --root-key /media/usb/root.key"))
@click.option("--root-key", type=FILE, help="Where the root's key is not here: PEM, PKCS#8.")
@shared(outputs=ANSWERS)
@pass_settings
def renew(settings: Settings, root_key: Path | None) -> None:
    """Make a new intermediate under the same root; the root's key is used and not kept.

    Where a Vault or OpenBao signs (up --ca-vault-address), it is asked for one.
    """
    key = root_key.read_text() if root_key else ""
    _print(settings, _post(settings, "renew", key=key))


@command.command("take-root", epilog=examples("sudo sixfold ca take-root /media/usb/root.key"))
@click.argument("file", type=click.Path(path_type=Path))
@shared()
@pass_settings
def take_root(settings: Settings, file: Path) -> None:
    """Write the active root's key into FILE, which must not exist, and forget it here."""
    found = _post(settings, "root-key")
    (active,) = [
        one for one in found["authorities"] if (one["kind"], one["status"]) == ("x509", "active")
    ]
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(found["key"])
        opened.flush()
        os.fsync(opened.fileno())
    _post(settings, "forget-root-key", id=active["id"])
    click.echo(f"the key of root {active['id']} is in {file}, and not here any more")


@command.command(epilog=examples("sudo sixfold ca csr > intermediate.csr"))
@shared()
@pass_settings
def csr(settings: Settings) -> None:
    """Print a request for an intermediate (PKCS#10), for an authority elsewhere to sign."""
    click.echo(_post(settings, "csr")["request"], nl=False)


@command.command(
    epilog=examples("sixfold ca sign intermediate.csr --root root.pem --root-key root.key")
)
@click.argument("csr_file", metavar="CSR", type=FILE)
@click.option("--root", type=FILE, required=True, help="Certificate of the root.")
@click.option("--root-key", type=FILE, required=True, help="Its key: PEM, PKCS#8.")
def sign(csr_file: Path, root: Path, root_key: Path) -> None:
    """Sign a request with a root's key; needs no agent, and no network."""
    from cryptography import x509

    from sixfold.trust.authority import key_from_pem, pem
    from sixfold.trust.authority import sign as signed

    try:
        certificate = x509.load_pem_x509_certificate(root.read_bytes())
        key = key_from_pem(root_key.read_bytes())
        made = signed(csr_file.read_bytes(), certificate, key, datetime.now(UTC))
    except ValueError as error:
        raise SixfoldError(str(error)) from None
    click.echo(pem(made).decode(), nl=False)


@command.command(
    "import",
    epilog=examples(
        "sudo sixfold ca import intermediate.pem\n"
        "sudo sixfold ca import ca-cert.pem --key ca-key.pem --root root-cert.pem"
    ),
)
@click.argument("certificates", metavar="CERTIFICATES", type=FILE)
@click.option("--key", type=FILE, help="Of the first certificate; that of the last csr.")
@click.option("--root", type=FILE, help="That they lead to; the active one.")
@shared(outputs=ANSWERS)
@pass_settings
def import_(settings: Settings, certificates: Path, key: Path | None, root: Path | None) -> None:
    """Take what an authority elsewhere signed: an intermediate, and what is above it.

    Under the active root it signs at once; under another one it is prepared, and has to be
    activated.
    """
    given = {name: path.read_text() for name, path in (("key", key), ("root", root)) if path}
    answer = _post(settings, "import", certificates=certificates.read_text(), **given)
    _print(settings, answer)


def _post(settings: Settings, verb: str, **asked: Any) -> dict[str, Any]:
    answer: dict[str, Any] = settings.client.post("/v1/authorities", {"verb": verb, **asked})
    return answer


def _print(settings: Settings, answer: dict[str, Any]) -> None:
    if settings.structured:
        print_structured(answer, settings.output)
        return
    header = ["KIND", "ID", "STATUS", "SIGNS UNTIL", "ROOT UNTIL", "ROOT KEY", "NEXT"]
    print_table(header, [_row(one) for one in answer["authorities"]])
    if upstream := answer.get("upstream"):
        problem = f": {upstream['problem']}" if upstream["problem"] else ""
        click.echo(f"under {upstream['address']}, mount {upstream['mount']}{problem}")


def _row(one: dict[str, Any]) -> list[str]:
    status = f"{one['status']}, tainted" if one["tainted"] else one["status"]
    then = {"prepared": "activated", "old": "revoked"}.get(one["status"], "")
    step = f"{then} in {_left(one['step_at'])}" if one["step_at"] else ""
    until = [
        _left(one["expires"]) if one.get("expires") else "-",
        _left(one["root_expires"]) if one.get("root_expires") else "-",
        one.get("root_key", "-"),
    ]
    return [one["kind"], one["id"], status, *until, step]


def _left(when: str) -> str:
    return duration((datetime.fromisoformat(when) - datetime.now(UTC)).total_seconds())
