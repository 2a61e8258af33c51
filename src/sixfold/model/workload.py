"""Pods and what makes pods: core/v1, apps/v1, batch/v1, as far as one host runs them.

Fields that parse but change nothing on one host are typed here and listed in
``docs/support.md`` as "accepted, no effect"; fields whose absence would weaken security or
change behaviour are refused by ``manifest``, with file, line and path.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written

Protocol = Literal["TCP", "UDP", "SCTP"]


class ContainerPort(Object):
    """A port that a container names; naming it does not open it."""

    container_port: int
    name: str = ""
    protocol: Protocol = "TCP"


class ObjectFieldSelector(Object):
    field_path: str
    api_version: str = "v1"


class EnvVarSource(Object):
    field_ref: ObjectFieldSelector | None = None


class EnvVar(Object):
    """An environment variable; ``$(NAME)`` in values refers to earlier ones."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class ExecAction(Object):
    command: list[str]


class HTTPHeader(Object):
    name: str
    value: str


class HTTPGetAction(Object):
    port: int | str
    path: str = "/"
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(Object):
    port: int | str
    host: str = ""


class GRPCAction(Object):
    port: int
    service: str = ""


class Probe(Object):
    """core/v1 Probe; exactly one action. Seconds throughout."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class SecurityContext(Object):
    """Who the process runs as; None means root, or what the pod says."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None


class ContainerSecurityContext(SecurityContext):
    """The container's own; ``allow_privilege_escalation`` False means no_new_privs."""

    allow_privilege_escalation: bool | None = None


class PodSecurityContext(SecurityContext):
    supplemental_groups: list[int] = []


class Container(Object):
    """One process of a pod. ``image`` may be absent or "host": it runs from the host's files."""

    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    env: list[EnvVar] = []
    ports: list[ContainerPort] = []
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    security_context: ContainerSecurityContext | None = None
    restart_policy: Literal["Always"] | None = None  # on an init container: a sidecar
    image_pull_policy: str = ""
    resources: dict[str, Any] = {}
    termination_message_path: str = ""
    termination_message_policy: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class PodSpec(Object):
    """core/v1 PodSpec."""

    containers: list[Container]
    init_containers: list[Container] = []
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: int = 30
    service_account_name: str = "default"
    service_account: str = ""  # deprecated alias
    hostname: str = ""
    subdomain: str = ""
    security_context: PodSecurityContext | None = None
    node_name: str = ""
    host_network: bool = False
    dns_policy: str = "ClusterFirst"
    enable_service_links: bool | None = None
    automount_service_account_token: bool | None = None
    scheduler_name: str = ""
    tolerations: list[dict[str, Any]] = []
    priority_class_name: str = ""
    priority: int | None = None
    preemption_policy: str = ""
    node_selector: dict[str, str] = {}
    affinity: dict[str, Any] = {}
    topology_spread_constraints: list[dict[str, Any]] = []
    image_pull_secrets: list[dict[str, Any]] = []


class Pod(Object):
    metadata: ObjectMeta
    spec: PodSpec
    api_version: str = written("v1")
    kind: str = written("Pod")
    status: dict[str, Any] = {}


class PodTemplateSpec(Object):
    spec: PodSpec
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


class RollingUpdate(Object):
    max_surge: int | str | None = None
    max_unavailable: int | str | None = None
    partition: int | None = None


class Strategy(Object):
    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(Object):
    selector: LabelSelector
    template: PodTemplateSpec
    replicas: int = 1
    strategy: Strategy | None = None
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    progress_deadline_seconds: int | None = None
    paused: bool = False


class Deployment(Object):
    metadata: ObjectMeta
    spec: DeploymentSpec
    api_version: str = written("apps/v1")
    kind: str = written("Deployment")
    status: dict[str, Any] = {}


class ReplicaSetSpec(Object):
    selector: LabelSelector
    template: PodTemplateSpec
    replicas: int = 1
    min_ready_seconds: int = 0


class ReplicaSet(Object):
    metadata: ObjectMeta
    spec: ReplicaSetSpec
    api_version: str = written("apps/v1")
    kind: str = written("ReplicaSet")
    status: dict[str, Any] = {}


class StatefulSetSpec(Object):
    selector: LabelSelector
    template: PodTemplateSpec
    service_name: str = ""
    replicas: int = 1
    pod_management_policy: Literal["OrderedReady", "Parallel"] = "OrderedReady"
    update_strategy: Strategy | None = None
    revision_history_limit: int | None = None
    min_ready_seconds: int = 0


class StatefulSet(Object):
    metadata: ObjectMeta
    spec: StatefulSetSpec
    api_version: str = written("apps/v1")
    kind: str = written("StatefulSet")
    status: dict[str, Any] = {}


class DaemonSetSpec(Object):
    selector: LabelSelector
    template: PodTemplateSpec
    update_strategy: Strategy | None = None
    revision_history_limit: int | None = None
    min_ready_seconds: int = 0


class DaemonSet(Object):
    metadata: ObjectMeta
    spec: DaemonSetSpec
    api_version: str = written("apps/v1")
    kind: str = written("DaemonSet")
    status: dict[str, Any] = {}


class JobSpec(Object):
    template: PodTemplateSpec
    completions: int = 1
    parallelism: int = 1
    backoff_limit: int = 6
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None


class Job(Object):
    metadata: ObjectMeta
    spec: JobSpec
    api_version: str = written("batch/v1")
    kind: str = written("Job")
    status: dict[str, Any] = {}


Controller = Deployment | ReplicaSet | StatefulSet | DaemonSet | Job


class JobTemplateSpec(Object):
    spec: JobSpec
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


class CronJobSpec(Object):
    job_template: JobTemplateSpec
    schedule: str = ""
    time_zone: str = ""
    concurrency_policy: str = ""
    suspend: bool = False
    starting_deadline_seconds: int | None = None
    successful_jobs_history_limit: int | None = None
    failed_jobs_history_limit: int | None = None


class CronJob(Object):
    """Read offline only: nothing starts it here."""

    metadata: ObjectMeta
    spec: CronJobSpec
    api_version: str = written("batch/v1")
    kind: str = written("CronJob")
    status: dict[str, Any] = {}


class ReplicationControllerSpec(Object):
    template: PodTemplateSpec
    selector: dict[str, str] = {}
    replicas: int = 1
    min_ready_seconds: int = 0


class ReplicationController(Object):
    """Read offline only; ReplicaSet is its successor."""

    metadata: ObjectMeta
    spec: ReplicationControllerSpec
    api_version: str = written("v1")
    kind: str = written("ReplicationController")
    status: dict[str, Any] = {}


OfflineController = CronJob | ReplicationController


def template_of(obj: Controller | OfflineController) -> PodTemplateSpec:
    """What a controller's pods are made of."""
    return obj.spec.job_template.spec.template if isinstance(obj, CronJob) else obj.spec.template
