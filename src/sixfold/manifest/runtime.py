"""Could this object run on this host? Commands of the host's file system do; images do not."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.errors import Problem
from sixfold.manifest.names import quoted
from sixfold.manifest.path import Finding, Path, show
from sixfold.model.kinds import Resource
from sixfold.model.workload import Container, Controller, Pod, PodSpec

HOST_IMAGES = frozenset({"", "host"})


def requires_runtime(obj: Resource, source: str = "", line: int = 0) -> list[Problem]:
    """Why this object cannot run here; empty when it can, or when it does not run at all."""
    return [
        Problem(source, line, show(finding.path), finding.message) for finding in unrunnable(obj)
    ]


def unrunnable(obj: Resource) -> Iterator[Finding]:
    """The same as findings, for ``load``."""
    if isinstance(obj, Pod):
        yield from _spec(("spec",), obj.spec)
    elif isinstance(obj, Controller):
        yield from _spec(("spec", "template", "spec"), obj.spec.template.spec)


def _spec(path: Path, spec: PodSpec) -> Iterator[Finding]:
    groups = (("initContainers", spec.init_containers), ("containers", spec.containers))
    for side, containers in groups:
        for index, container in enumerate(containers):
            yield from _container((*path, side, index), container, spec)


def _container(path: Path, container: Container, spec: PodSpec) -> Iterator[Finding]:
    if container.image not in HOST_IMAGES:
        wanted = "give image: host and a command, or attach containers by CNI, see docs/support.md"
        message = f"{quoted(container.image)}: images are not run here; {wanted}"
        yield Finding((*path, "image"), message)
    elif not container.command:
        yield Finding((*path, "command"), "is required, there is no image to name one; add it")
    own, of_pod = container.security_context, spec.security_context
    users = [c.run_as_user for c in (own, of_pod) if c is not None and c.run_as_user is not None]
    wishes = [
        c.run_as_non_root for c in (own, of_pod) if c is not None and c.run_as_non_root is not None
    ]
    if wishes and wishes[0] and (not users or users[0] == 0):
        message = "runAsNonRoot is true and the user would be root; give runAsUser"
        yield Finding((*path, "securityContext"), message)
