"""What a pod's processes are given by the node: their files and their container specs."""

from __future__ import annotations

import os
from pathlib import Path

from sixfold.discovery.pod_files import hosts_file, resolv_conf
from sixfold.host.containers import ContainerSpec
from sixfold.host.network import Attachment
from sixfold.model.config import Config
from sixfold.model.workload import Container, Pod
from sixfold.workloads.environment import Placement, arguments, environment, hostname, user
from sixfold.workloads.lifecycle import PodLifecycle

RESOLV_CONF, HOSTS = "resolv.conf", "hosts"


def write_files(directory: Path, pod: Pod, config: Config, attachment: Attachment) -> None:
    """Write /etc/resolv.conf and /etc/hosts of a pod, unless they are there as they should be.

    Never replaced by rename: running containers have these very files mounted.
    """
    directory.mkdir(parents=True, exist_ok=True)
    meta = pod.metadata
    _write(directory / RESOLV_CONF, resolv_conf(config, meta.namespace))
    hosts = hosts_file(
        meta.name,
        meta.namespace,
        attachment.addresses,
        hostname=hostname(pod),
        subdomain=pod.spec.subdomain,
        domain=config.cluster_domain,
    )
    _write(directory / HOSTS, hosts)


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    path.write_text(text)
    os.chmod(path, 0o644)  # whatever the umask: workloads run as any user


def written(pod: Pod, name: str) -> Container:
    """A container as the manifest has it."""
    both = (*pod.spec.init_containers, *pod.spec.containers)
    return next(container for container in both if container.name == name)


def container_spec(
    life: PodLifecycle, name: str, attempt: int, placement: Placement, directory: Path
) -> ContainerSpec:
    """One attempt of a container, ready to start; raises ContainerConfigError."""
    pod, network = life.pod, life.network
    assert network is not None, f"{life.key}: a container before its network"
    container = written(pod, name)
    env = environment(pod, container, placement)
    runs_as = user(pod, container)
    security = container.security_context
    return ContainerSpec(
        pod_key=life.key,
        pod_uid=pod.metadata.uid,
        name=name,
        attempt=attempt,
        argv=arguments(container, env),
        env=env,
        workdir=container.working_dir or "/",
        uid=runs_as.uid,
        gid=runs_as.gid,
        groups=runs_as.groups,
        no_new_privs=security is not None and security.allow_privilege_escalation is False,
        netns=Path(network.netns),
        hostname=hostname(pod),
        resolv_conf=directory / RESOLV_CONF,
        hosts=directory / HOSTS,
    )
