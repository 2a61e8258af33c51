"""What is wrong with annotations about discovery: a value that is not known would be ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sixfold.discovery.dns_sd import PATH as DNS_SD_PATH
from sixfold.discovery.registered import OPEN, REGISTRATION
from sixfold.manifest.names import quoted
from sixfold.manifest.path import Finding, Path
from sixfold.model.meta import ObjectMeta

_PATH = re.compile(r"/[!#-\[\]-~]{0,199}")


def announcing(kind: str, path: Path, meta: ObjectMeta) -> Iterator[Finding]:
    """Findings about the annotations of an object."""
    for key in (REGISTRATION, DNS_SD_PATH):
        value = meta.annotations.get(key)
        here = (*path, "annotations", key)
        if value is None:
            continue
        if kind != "Service":
            yield Finding(here, f"means nothing on a {kind}; give it to a Service")
        elif key == REGISTRATION and value != OPEN:
            yield Finding(here, f'{quoted(value)} is unknown; give "{OPEN}", or remove it')
        elif key == DNS_SD_PATH and not _PATH.fullmatch(value):
            message = 'give one that starts with "/", at most 200 characters, no spaces or quotes'
            yield Finding(here, f"{quoted(value)} is no path; {message}")
