"""Is this process one that its pod's identity is for?

Pure. Selectors are in the words of SPIRE's unix attestor. A pod that no object with selectors picks
is attested by its control group alone: all its processes are alike. Else a process must fit one
object in all of its selectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sixfold.model.clusterspiffeid import ClusterSPIFFEID

Selectors = tuple[str, ...]
KINDS = ("uid", "gid", "path", "sha256")


@dataclass(frozen=True, slots=True)
class Traits:
    """Of a process, as the kernel has them; ``sha256`` of its executable, in hex."""

    uid: int
    gid: int
    path: str
    sha256: str

    @property
    def selectors(self) -> frozenset[str]:
        return frozenset(
            {
                f"unix:uid:{self.uid}",
                f"unix:gid:{self.gid}",
                f"unix:path:{self.path}",
                f"unix:sha256:{self.sha256}",
            }
        )


def fault(selector: str) -> str:
    """What is wrong with a selector; "" when it can be asked of a process."""
    issuer, _, rest = selector.partition(":")
    kind, _, value = rest.partition(":")
    if issuer != "unix" or kind not in KINDS:
        return f"{selector!r}: give one of {', '.join(f'unix:{one}:…' for one in KINDS)}"
    if kind in ("uid", "gid") and not value.isdecimal():
        return f"{selector!r}: {value!r} is no number"
    if kind == "path" and not value.startswith("/"):
        return f"{selector!r}: {value!r} is no absolute path"
    if kind == "sha256" and (len(value) != 64 or not set(value) <= set("0123456789abcdef")):
        return f"{selector!r}: a SHA-256 has 64 digits of 0-9 and a-f"
    return ""


def alternatives(
    objects: Iterable[ClusterSPIFFEID],
    namespace_labels: Mapping[str, str],
    pod_labels: Mapping[str, str],
) -> tuple[Selectors, ...]:
    """Selectors of the objects that pick a pod, if any has some."""
    found = []
    for obj in objects:
        spec = obj.spec
        if (
            spec.workload_selector_templates
            and (
                spec.namespace_selector is None or spec.namespace_selector.matches(namespace_labels)
            )
            and (spec.pod_selector is None or spec.pod_selector.matches(pod_labels))
        ):
            found.append(tuple(spec.workload_selector_templates))
    return tuple(found)


def lacking(asked: Iterable[Selectors], process: Traits) -> Selectors:
    """() when the process fits one; else what it lacks of the one that it fits best."""
    lacks = [tuple(one for one in those if one not in process.selectors) for those in asked]
    return min(lacks, key=len, default=())
