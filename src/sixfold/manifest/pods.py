"""What is wrong with a pod spec, beyond its shape. Source: core/v1 validation of PodSpec.

``offline`` leaves out what matters only to a process that runs here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import between, refused_values, said
from sixfold.manifest.path import Finding, Path
from sixfold.manifest.probes import probes
from sixfold.model.identity import NamedPort
from sixfold.model.subject import serving_containers
from sixfold.model.workload import Container, EnvVar, PodSpec, SecurityContext

_FIELD_PATHS = frozenset(
    {
        *("metadata.name", "metadata.namespace", "metadata.uid"),
        *("spec.nodeName", "spec.serviceAccountName"),
        *("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
    }
)
_FIELD_WITH_KEY = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]\Z")
_ID_MAX = (1 << 31) - 1


def pod_spec(path: Path, spec: PodSpec, *, offline: bool) -> Iterator[Finding]:
    """Findings about a pod spec, wherever it stands."""
    yield from refused_values(path, spec, offline=offline)
    if not spec.containers and not offline:
        yield Finding((*path, "containers"), "is empty; add a container")
    yield from _names(path, spec)
    for index, container in enumerate(spec.init_containers):
        here = (*path, "initContainers", index)
        yield from _container(here, container, offline=offline)
        yield from probes(here, container, sidecar=container.restart_policy == "Always")
    for index, container in enumerate(spec.containers):
        here = (*path, "containers", index)
        yield from _container(here, container, offline=offline)
        yield from probes(here, container)
        if container.restart_policy:
            message = "belongs to the pod, or to an init container that is a sidecar; remove it"
            yield Finding((*here, "restartPolicy"), message)
    if not offline:  # upstream takes them, and then a name means several ports
        yield from _ambiguous_ports(path, spec)
    yield from _settings(path, spec, offline=offline)


def _names(path: Path, spec: PodSpec) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    groups = (("initContainers", spec.init_containers), ("containers", spec.containers))
    for side, containers in groups:
        for index, container in enumerate(containers):
            here = (*path, side, index, "name")
            yield from said(here, names.dns_label(container.name))
            first = seen.setdefault(container.name, f"{side}[{index}]")
            if first != f"{side}[{index}]":
                message = f"{names.quoted(container.name)} is the name of {first} too; give another"
                yield Finding(here, message)


def _container(path: Path, container: Container, *, offline: bool) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, port in enumerate(container.ports):
        here = (*path, "ports", index)
        yield from said((*here, "containerPort"), names.port_number(port.container_port))
        if not port.name:
            continue
        yield from said((*here, "name"), names.port_name(port.name))
        if (first := seen.setdefault(port.name, index)) != index:
            message = f"{names.quoted(port.name)} is the name of ports[{first}] too; give another"
            yield Finding((*here, "name"), message)
    if offline:
        return
    for index, variable in enumerate(container.env):
        yield from _variable((*path, "env", index), variable)
    if container.working_dir and not container.working_dir.startswith("/"):
        message = f"{names.quoted(container.working_dir)} is relative; give an absolute path"
        yield Finding((*path, "workingDir"), message)
    if container.security_context is not None:
        yield from _user((*path, "securityContext"), container.security_context)


def _variable(path: Path, variable: EnvVar) -> Iterator[Finding]:
    name = variable.name
    if not name or "=" in name or not name.isascii() or not name.isprintable():
        message = f"{names.quoted(name)} is not a variable name; give ASCII without '='"
        yield Finding((*path, "name"), message)
    if "\0" in variable.value:
        yield Finding((*path, "value"), "holds a NUL character; remove it")
    source = variable.value_from
    if source is None:
        return
    if variable.value:
        yield Finding((*path, "valueFrom"), "value is given too; keep one of them")
    if source.field_ref is None:
        yield Finding((*path, "valueFrom"), "names no source; give fieldRef")
        return
    here = (*path, "valueFrom", "fieldRef", "fieldPath")
    field = source.field_ref.field_path
    if field not in _FIELD_PATHS and not _FIELD_WITH_KEY.match(field):
        options = ", ".join(sorted(_FIELD_PATHS))
        wanted = f"give {options}, metadata.labels['KEY'] or metadata.annotations['KEY']"
        yield Finding(here, f"{names.quoted(field)} is not a field we know; {wanted}")


def _user(path: Path, context: SecurityContext) -> Iterator[Finding]:
    yield from between((*path, "runAsUser"), context.run_as_user, 0, _ID_MAX)
    yield from between((*path, "runAsGroup"), context.run_as_group, 0, _ID_MAX)
    if context.run_as_non_root and context.run_as_user == 0:
        message = "0 is root, and runAsNonRoot is true; give another user"
        yield Finding((*path, "runAsUser"), message, also=((*path, "runAsNonRoot"),))


def _ambiguous_ports(path: Path, spec: PodSpec) -> Iterator[Finding]:
    """One name, one port per pod: policies and services name ports of the pod, not containers."""
    known: dict[tuple[str, str], NamedPort] = {}
    reported: set[tuple[str, str]] = set()
    for container in serving_containers(spec):
        inside: set[str] = set()
        for port in container.ports:
            if not port.name or port.name in inside:
                continue
            inside.add(port.name)
            named = NamedPort(port.name, port.protocol, port.container_port)
            first = known.setdefault((port.name, port.protocol), named)
            if first.port != named.port and (port.name, port.protocol) not in reported:
                reported.add((port.name, port.protocol))
                which = f"{first.port} in one container and {named.port} in {container.name}"
                message = f"port name {names.quoted(port.name)} is {which}; give two names"
                yield Finding((*path, "containers"), message)


def _settings(path: Path, spec: PodSpec, *, offline: bool) -> Iterator[Finding]:
    for field, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if value:
            yield from said((*path, field), names.dns_label(value))
    account, alias = spec.service_account_name, spec.service_account
    if account:
        yield from said((*path, "serviceAccountName"), names.dns_subdomain(account))
    if alias:
        yield from said((*path, "serviceAccount"), names.dns_subdomain(alias))
    if alias and account not in (alias, "default", ""):
        message = f"is an old name of serviceAccountName, which is {account}; remove it"
        yield Finding((*path, "serviceAccount"), message, also=((*path, "serviceAccountName"),))
    if offline:
        return
    grace = (*path, "terminationGracePeriodSeconds")
    yield from between(grace, spec.termination_grace_period_seconds, 0)
    if spec.dns_policy != "ClusterFirst":
        message = f"{names.quoted(spec.dns_policy)} is not supported; give ClusterFirst"
        yield Finding((*path, "dnsPolicy"), message)
    if (context := spec.security_context) is not None:
        here = (*path, "securityContext")
        yield from _user(here, context)
        for index, group in enumerate(context.supplemental_groups):
            yield from between((*here, "supplementalGroups", index), group, 0, _ID_MAX)
