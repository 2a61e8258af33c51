"""Kubernetes YAML to the model: what is valid here, with file, line and field path for the rest.

It reads files and standard input, and nothing else; it decides nothing about what runs.
Sources: the Kubernetes API and its validation; ``docs/support.md`` lists every field.
"""

from sixfold.manifest.load import Ignored, Loaded, Manifests, decode, load, loads, restore
from sixfold.manifest.offline import offline
from sixfold.manifest.runtime import requires_runtime
from sixfold.model.kinds import ALIASES, KINDS, Kind, Resource, find, key_of

__all__ = [
    "ALIASES",
    "KINDS",
    "Ignored",
    "Kind",
    "Loaded",
    "Manifests",
    "Resource",
    "decode",
    "find",
    "key_of",
    "load",
    "loads",
    "offline",
    "requires_runtime",
    "restore",
]
