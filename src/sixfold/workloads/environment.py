"""What a container's process is given: arguments, environment, user.

Source: core/v1 Container and SecurityContext. The environment is small on purpose: PATH,
HOSTNAME, SPIFFE_ENDPOINT_SOCKET and what the manifest says. No variables are made for services
(HOST and PORT per service, as Docker links did): names are what discovery is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sixfold.errors import SixfoldError
from sixfold.model.subject import service_account_of
from sixfold.model.workload import Container, Pod

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


class ContainerConfigError(SixfoldError):
    """The container cannot be started as it is written; shown as CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a pod runs: what ``fieldRef`` and $(VAR) may ask for beyond the manifest."""

    node: str
    host_ips: tuple[str, ...]
    pod_ips: tuple[str, ...]  # in the order of status.podIPs
    spiffe_endpoint: str = ""  # where it may ask who it is; "": nowhere


@dataclass(frozen=True, slots=True)
class User:
    """Who a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def environment(pod: Pod, container: Container, placement: Placement) -> dict[str, str]:
    """The whole environment of the process, in the order of the manifest."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname(pod)}
    if placement.spiffe_endpoint:
        env["SPIFFE_ENDPOINT_SOCKET"] = placement.spiffe_endpoint
    for variable in container.env:
        source = variable.value_from
        if source is not None and source.field_ref is not None:
            env[variable.name] = field(pod, placement, source.field_ref.field_path)
        else:
            env[variable.name] = expand(variable.value, env)
    return env


def arguments(container: Container, env: Mapping[str, str]) -> tuple[str, ...]:
    """``command`` and ``args``; there is no image that could bring an entrypoint."""
    if not container.command and not container.args:
        raise ContainerConfigError(
            f"container {container.name}: no command: there is no image to take one from; "
            "write command"
        )
    return tuple(expand(word, env) for word in (*container.command, *container.args))


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) by its value; $$ is a plain $, and an unknown name stays as written."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def field(pod: Pod, placement: Placement, path: str) -> str:
    """The value of a ``fieldRef``; absent labels and annotations are empty."""
    meta, spec = pod.metadata, pod.spec
    if match := _SUBSCRIPT.fullmatch(path):
        values = meta.labels if match[1] == "labels" else meta.annotations
        return values.get(match[2], "")
    plain: Mapping[str, Callable[[], str]] = {
        "metadata.name": lambda: meta.name,
        "metadata.namespace": lambda: meta.namespace,
        "metadata.uid": lambda: meta.uid,
        "spec.nodeName": lambda: placement.node,
        "spec.serviceAccountName": lambda: service_account_of(spec),
        "status.podIP": lambda: next(iter(placement.pod_ips), ""),
        "status.podIPs": lambda: ",".join(placement.pod_ips),
        "status.hostIP": lambda: next(iter(placement.host_ips), ""),
        "status.hostIPs": lambda: ",".join(placement.host_ips),
    }
    if path not in plain:
        known = ", ".join([*plain, "metadata.labels['…']", "metadata.annotations['…']"])
        raise ContainerConfigError(f"fieldPath {path!r}: not supported; one of {known}")
    return plain[path]()


def hostname(pod: Pod) -> str:
    """The pod's hostname: what it asks for, else its name cut to 63 letters as kubelet does."""
    return pod.spec.hostname or pod.metadata.name[:63].rstrip("-.")


def user(pod: Pod, container: Container) -> User:
    """Who the container runs as: its own security context over the pod's, root by default."""
    ours, theirs = container.security_context, pod.spec.security_context
    levels = [level for level in (ours, theirs) if level is not None]

    def first(values: list[int | None]) -> int:
        return next((value for value in values if value is not None), 0)

    uid = first([level.run_as_user for level in levels])
    gid = first([level.run_as_group for level in levels])
    strict = [level.run_as_non_root for level in levels if level.run_as_non_root is not None]
    if strict and strict[0] and uid == 0:
        raise ContainerConfigError(
            f"container {container.name}: runAsNonRoot is set and the user is root; "
            "set runAsUser to another uid"
        )
    return User(uid, gid, tuple(theirs.supplemental_groups) if theirs else ())
