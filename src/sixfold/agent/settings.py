"""What the last start was told, kept in the store: the next start needs no flags.

Apart from the agent: whoever ends an instance asks for it, too, and needs nothing else of one.
"""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_network
from typing import Any

import msgspec

from sixfold.host.paths import Paths
from sixfold.model.config import Config
from sixfold.store import Database


def remember(config: Config, database: Database) -> None:
    """Keep the settings for the next start, now that they are known to work."""
    values = {item.name: getattr(config, item.name) for item in fields(config)}
    database.set_meta("config", msgspec.json.encode(values, enc_hook=str).decode())


def remembered(database: Database) -> Config | None:
    """The settings of the last start; None when there was none."""
    text = database.meta("config")
    if not text:
        return None
    values: dict[str, Any] = msgspec.json.decode(text)
    for name in ("pod_ipv4", "pod_ipv6", "service_ipv4", "service_ipv6"):
        values[name] = ip_network(values[name])
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    return Config(**values)


def stored_config(paths: Paths) -> Config | None:
    """The same, of an instance that need not run."""
    path = paths.state / "state.db"
    if not path.exists():
        return None
    database = Database(path)
    try:
        return remembered(database)
    finally:
        database.close()
