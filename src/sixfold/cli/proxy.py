"""``sixfold proxy``: what a proxy itself says; see ``proxy_of`` for which one, and how."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from sixfold.cli.output import duration, print_structured, print_table
from sixfold.cli.proxy_of import ask, home, homes, pod_option, told
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.errors import UnavailableError
from sixfold.host.proxy_home import ProxyHome

LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
Item = Mapping[str, Any]
Row = list[str]

# Kind: what Envoy calls its parts of the configuration.
KINDS = {
    "listeners": ("dynamic_listeners",),
    "clusters": ("dynamic_active_clusters", "dynamic_warming_clusters"),
    "routes": ("dynamic_route_configs",),
    "secrets": ("dynamic_active_secrets", "dynamic_warming_secrets"),
    "bootstrap": ("bootstrap",),
}


@click.group(
    short_help="Look inside the mesh's proxies.",
    epilog=examples(
        """
sudo sixfold proxy list
sudo sixfold proxy config listeners shop/web
sudo sixfold proxy config routes shop/web -o wide
sudo sixfold proxy clusters
sudo sixfold proxy stats inbound --pod shop/web
"""
    ),
)
def command() -> None:
    """Look inside the mesh's proxies: what one holds, not what it was sent.

    One Envoy carries all pods of the node, but those that have one of their own
    (sixfold up --placement, sixfold.dev/placement). Say which with --pod.
    """


@command.command(
    name="list", epilog=examples("sudo sixfold proxy list\nsudo sixfold proxy list -o json")
)
@shared(outputs=ANSWERS)
@pass_settings
def list_(settings: Settings) -> None:
    """List proxies: whose each is, whether it serves, and what it carries and costs.

    Memory is resident; of what several processes share, each one's part.
    """
    found = [line for one in homes(settings) for line in told(one)]
    if settings.structured:
        print_structured(found, settings.output)
        return
    header = ("PROXY", "PID", "STATE", "AGENT", "PODS", "CONNECTIONS", "MEMORY", "UP")
    print_table(header, [_told(one) for one in found])


def _told(one: Item) -> Row:
    if "pods" not in one:
        return [one["proxy"], str(one["pid"] or "-"), one["state"], *["-"] * 5]
    return [
        *(one["proxy"], str(one["pid"]), one["state"]),
        *("connected" if one["agent"] else "away", str(one["pods"]), str(one["connections"])),
        *(f"{one['memoryBytes'] / 2**20:.1f} MiB", duration(one["uptimeSeconds"])),
    ]


@command.command(
    epilog=examples("sudo sixfold proxy config secrets\nsudo sixfold proxy config all -o json")
)
@click.argument("kind", type=click.Choice([*KINDS, "all"]))
@click.argument("pod", default="")
@pod_option
@shared(outputs=ANSWERS)
@pass_settings
def config(settings: Settings, kind: str, pod: str, whose: str) -> None:
    """Show listeners, clusters, routes, secrets or the bootstrap; of one POD, or of all.

    POD is part of a name: shop/web; of a pod that has a proxy of its own all of that is shown.
    Routes are shown by the rules that they let in.
    """
    asked = home(settings, whose or next((it.pod for it in homes(settings) if it.pod == pod), ""))
    pod = "" if pod == asked.pod else pod
    if kind == "all":
        print_structured(_dump(asked), settings.output if settings.structured else "json")
        return
    found = [one for part in KINDS[kind] for one in _dump(asked, part) if pod in _name(one)]
    if settings.structured or kind == "bootstrap":
        print_structured(found, settings.output if settings.structured else "json")
        return
    header, rows = TABLES[kind]
    wide = settings.output == "wide"
    cells = [row for one in sorted(found, key=_name) for row in rows(one)]
    shown = len(header) if wide or kind != "routes" else len(header) - 1
    print_table(header[:shown], [row[:shown] for row in cells])


@command.command(
    epilog=examples("sudo sixfold proxy clusters\nsudo sixfold proxy clusters 10.244.0.3")
)
@click.argument("name", default="")
@pod_option
@shared(outputs=ANSWERS)
@pass_settings
def clusters(settings: Settings, name: str, whose: str) -> None:
    """Show the ways to pods, and what is under way on them: connections, tunnels, failures."""
    answer = json.loads(ask(home(settings, whose), "/clusters", {"format": "json"}))
    found = [one for one in answer.get("cluster_statuses", ()) if name in one["name"]]
    if settings.structured:
        print_structured(found, settings.output)
        return
    header = ("CLUSTER", "ADDRESS", "CONNECTIONS", "TUNNELS", "EVER", "FAILED")
    print_table(header, [row for one in found for row in _hosts(one)])


@command.command(epilog=examples("sudo sixfold proxy stats rbac\nsudo sixfold proxy stats -o json"))
@click.argument("pattern", default="")
@pod_option
@shared(outputs=ANSWERS)
@pass_settings
def stats(settings: Settings, pattern: str, whose: str) -> None:
    """Show counters that are not zero; PATTERN is a regular expression for their names."""
    params = {"format": "json", "usedonly": ""} | ({"filter": pattern} if pattern else {})
    answer = json.loads(ask(home(settings, whose), "/stats", params))
    found = {one["name"]: one["value"] for one in answer["stats"] if "value" in one}
    if settings.structured:
        print_structured(found, settings.output)
        return
    print_table(("NAME", "VALUE"), [(one, str(value)) for one, value in found.items() if value])


@command.command(epilog=examples("sudo sixfold proxy log\nsudo sixfold proxy log --level debug"))
@click.option("--level", type=click.Choice(LEVELS), help="From now on; of all its parts.")
@click.option("--tail", type=click.IntRange(1), default=50, show_default=True, help="Lines.")
@pod_option
@shared()
@pass_settings
def log(settings: Settings, level: str | None, tail: int, whose: str) -> None:
    """Print what the proxy has logged, or set how much it logs."""
    asked = home(settings, whose)
    if level is not None:
        ask(asked, "/logging", {"level": level}, method="POST")
        click.echo(f"level {level}")
        return
    try:
        lines = asked.log_file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        raise UnavailableError(f"{asked.log_file}: no proxy has run; see sixfold status") from None
    for line in lines[-tail:]:
        click.echo(line)


@command.command(
    epilog=examples("sudo sixfold proxy restart\nsudo sixfold proxy restart --pod shop/web")
)
@pod_option
@shared()
@pass_settings
def restart(settings: Settings, whose: str) -> None:
    """Replace the proxy by another process; no connection is cut.

    New connections go to the new one, and this returns when all do. Those that are open stay
    with the old one, which ends when the last of them has; or when its time is over, if
    sixfold up --proxy-drain said how long that is.
    """
    done = settings.client.post("/v1/proxy/restart", {"pod": home(settings, whose).pod})
    of = f" of {done['pod']}" if done["pod"] else ""
    click.echo(f"proxy {done['pid']}{of} serves")
    for pid in done["draining"]:
        click.echo(f"proxy {pid} keeps what is open, and ends after that")


# --- what Envoy says ----------------------------------------------------------------------------


def _dump(asked: ProxyHome, part: str = "") -> list[Any]:
    params = {"resource": part} if part and part != "bootstrap" else {}
    found: list[Any] = json.loads(ask(asked, "/config_dump", params)).get("configs", [])
    if part == "bootstrap":
        return [one["bootstrap"] for one in found if "bootstrap" in one]
    return found


def _name(one: Item) -> str:
    if "name" in one:
        return str(one["name"])
    inner = one.get("cluster") or one.get("route_config") or {}
    return str(inner.get("name", ""))


def _listeners(one: Item) -> Iterator[Row]:
    state = "active" if "active_state" in one else "warming"
    listener = (one.get("active_state") or one.get("warming_state") or {}).get("listener", {})
    if error := one.get("error_state", {}).get("details"):
        state = f"refused: {error}"
    more = [it["address"] for it in listener.get("additional_addresses", ())]
    places = [it["socket_address"] for it in (listener.get("address"), *more) if it]
    addresses = ", ".join(f"{it['address']}:{it['port_value']}" for it in places) or "-"
    yield [_name(one), addresses, listener.get("traffic_direction", "-"), state]


def _clusters(one: Item) -> Iterator[Row]:
    cluster = one["cluster"]
    tls = cluster.get("transport_socket", {}).get("typed_config", {})
    context = tls.get("common_tls_context", {}).get("combined_validation_context", {})
    expected = context.get("default_validation_context", {}).get(
        "match_typed_subject_alt_names", []
    )
    ids = ", ".join(it["matcher"]["exact"] for it in expected) or "-"
    yield [cluster["name"], cluster.get("type", "-"), ids, _when(one.get("last_updated"))]


def _routes(one: Item) -> Iterator[Row]:
    config = one["route_config"]
    for host in config.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            for filter_ in route.get("typed_per_filter_config", {}).values():
                rules = filter_.get("rbac", {}).get("rules", {})
                for name, policy in sorted(rules.get("policies", {}).items()):
                    whom = ", ".join(sorted(set(_ids(policy["principals"]))))
                    match = policy["permissions"][0]["header"]["string_match"]
                    ((_, authority),) = match.items()
                    text = authority if isinstance(authority, str) else authority["regex"]
                    number, _, rule = name.partition(" ")
                    yield [config["name"], number, rule, text.replace("\\", ""), whom]


def _ids(value: Any) -> Iterator[str]:
    """Names and addresses of principals, wherever in them; what is excepted is none."""
    if isinstance(value, dict):
        if "principal_name" in value:
            yield from map(str, value["principal_name"].values())
        elif "address_prefix" in value:
            yield f"{value['address_prefix']}/{value['prefix_len']}"
        else:
            for key, inner in value.items():
                if key != "not_id":
                    yield from _ids(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _ids(inner)


def _secrets(one: Item) -> Iterator[Row]:
    secret = one.get("secret", {})
    chain = secret.get("tls_certificate", {}).get("certificate_chain", {})
    trusted = secret.get("validation_context", {}).get("trusted_ca", {})
    kind = "certificate" if chain else "authority" if trusted else "-"
    pem = base64.b64decode((chain or trusted).get("inline_bytes", ""))
    serial, left = _certificate(pem) if pem else ("-", "-")
    yield [_name(one), kind, serial, left, _when(one.get("last_updated"))]


def _certificate(pem: bytes) -> tuple[str, str]:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(pem)
    left = found.not_valid_after_utc - datetime.now(UTC)
    return f"{found.serial_number:x}", duration(max(0, int(left.total_seconds())))


def _when(timestamp: str | None) -> str:
    if not timestamp:
        return "-"
    since = datetime.now(UTC) - datetime.fromisoformat(timestamp)
    return duration(max(0, int(since.total_seconds())))


def _hosts(one: Item) -> Iterator[Row]:
    for host in one.get("host_statuses", ()):
        place = host["address"].get("socket_address")
        where = (
            f"{place['address']}:{place['port_value']}"
            if place
            else host["address"]["pipe"]["path"]
        )
        counts = {it["name"]: it.get("value", "0") for it in host.get("stats", ())}
        names = ("cx_active", "rq_active", "rq_total", "cx_connect_fail")
        yield [one["name"], where, *(str(counts.get(name, 0)) for name in names)]


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Item], Iterator[Row]]]] = {
    "listeners": (("LISTENER", "ADDRESSES", "DIRECTION", "STATE"), _listeners),
    "clusters": (("CLUSTER", "TYPE", "PEER", "UPDATED"), _clusters),
    "routes": (("ROUTES", "NUMBER", "RULE", "AUTHORITY", "FROM"), _routes),
    "secrets": (("SECRET", "KIND", "SERIAL", "EXPIRES IN", "UPDATED"), _secrets),
}
