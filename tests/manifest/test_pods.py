from __future__ import annotations

import pytest


def test_a_pod_with_all_that_is_enforced_is_taken(said, make):
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    sidecar = make.container(name="proxy", restartPolicy="Always", readinessProbe=probe)
    env = [
        {"name": "A", "value": "$(B)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
    ]
    ports = [{"containerPort": 53, "name": "dns", "protocol": "UDP"}, {"containerPort": 53}]
    context = {"runAsUser": 65534, "runAsNonRoot": True, "allowPrivilegeEscalation": False}
    main = make.container(env=env, ports=ports, securityContext=context, workingDir="/srv")
    spec = {
        "initContainers": [sidecar, make.container(name="init")],
        "containers": [main],
        "restartPolicy": "OnFailure",
        "hostname": "web-0",
        "subdomain": "web",
        "serviceAccountName": "web",
        "securityContext": {"supplementalGroups": [4], "runAsGroup": 65534},
        "terminationGracePeriodSeconds": 0,
    }
    assert said(make.pod(spec)) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"containers": []}, "containers: is empty; add a container", id="empty"),
        pytest.param({"hostNetwork": True}, "hostNetwork: not supported: every pod", id="host"),
        pytest.param({"dnsPolicy": "Default"}, 'dnsPolicy: "Default" is not supported', id="dns"),
        pytest.param({"hostname": "a.b"}, 'hostname: "a.b" is not a DNS label', id="hostname"),
        pytest.param(
            {"terminationGracePeriodSeconds": -1},
            "terminationGracePeriodSeconds: -1 is out of range; give 0 to",
            id="grace",
        ),
        pytest.param(
            {"serviceAccountName": "a", "serviceAccount": "b"},
            "serviceAccount: is an old name of serviceAccountName, which is a; remove it",
            id="accounts",
        ),
        pytest.param(
            {"securityContext": {"supplementalGroups": [-1]}},
            "securityContext.supplementalGroups[0]: -1 is out of range",
            id="group",
        ),
        pytest.param({"volumes": [{"name": "v"}]}, "volumes: not supported: containers", id="vol"),
        pytest.param({"hostPID": True}, "hostPID: not supported: every container", id="pid"),
    ],
)
def test_what_a_pod_cannot_be_is_said(said, make, spec, message):
    (line,) = said(make.pod(spec))
    assert line.startswith(f"spec.{message}")


@pytest.mark.parametrize(
    ("container", "message"),
    [
        pytest.param({"name": "A"}, 'name: "A" is not a DNS label', id="name"),
        pytest.param({"workingDir": "srv"}, 'workingDir: "srv" is relative', id="relative"),
        pytest.param(
            {"restartPolicy": "Always"}, "restartPolicy: belongs to the pod", id="restart"
        ),
        pytest.param(
            {"restartPolicy": "Never"}, 'restartPolicy: "Never" is not supported', id="no"
        ),
        pytest.param(
            {"ports": [{"containerPort": 0}]}, "ports[0].containerPort: 0 is not a port", id="port"
        ),
        pytest.param(
            {"ports": [{"containerPort": 1, "name": "a_b"}]},
            'ports[0].name: "a_b" is not a port name',
            id="port name",
        ),
        pytest.param(
            {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]},
            'ports[1].name: "a" is the name of ports[0] too',
            id="port name twice",
        ),
        pytest.param({"env": [{"name": "A=B"}]}, 'env[0].name: "A=B" is not a variable', id="env"),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {}}]},
            "env[0].valueFrom: names no source; give fieldRef",
            id="no source",
        ),
        pytest.param(
            {
                "env": [
                    {
                        "name": "A",
                        "value": "b",
                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                    }
                ]
            },
            "env[0].valueFrom: value is given too; keep one of them",
            id="two sources",
        ),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.volumes"}}}]},
            'env[0].valueFrom.fieldRef.fieldPath: "spec.volumes" is not a field we know',
            id="field path",
        ),
        pytest.param(
            {"securityContext": {"runAsUser": 0, "runAsNonRoot": True}},
            "securityContext.runAsUser: 0 is root, and runAsNonRoot is true",
            id="root",
        ),
        pytest.param(
            {"securityContext": {"runAsUser": 2**31}},
            "securityContext.runAsUser: 2147483648 is out of range",
            id="user",
        ),
        pytest.param(
            {"securityContext": {"capabilities": {"drop": ["ALL"]}}},
            "securityContext.capabilities: not supported: capabilities are not changed",
            id="capabilities",
        ),
        pytest.param(
            {"securityContext": {"privileged": True}},
            "securityContext.privileged: not supported",
            id="privileged",
        ),
        pytest.param({"lifecycle": {"preStop": {}}}, "lifecycle: not supported: hooks", id="hooks"),
        pytest.param(
            {"ports": [{"containerPort": 1, "hostPort": 1}]}, "ports[0].hostPort: ", id="hp"
        ),
    ],
)
def test_what_a_container_cannot_be_is_said(said, make, container, message):
    (line,) = said(make.pod({"containers": [make.container(**container)]}))
    assert line.startswith(f"spec.containers[0].{message}")


def test_values_that_ask_for_nothing_are_taken(said, make):
    context = {"privileged": False, "readOnlyRootFilesystem": False, "capabilities": {}}
    main = make.container(securityContext=context, volumeMounts=[], envFrom=None)
    spec = {"containers": [main], "hostNetwork": False, "hostPID": False, "volumes": []}
    assert said(make.pod(spec)) == []


def test_container_names_are_unique_over_both_lists(said, make):
    spec = {"initContainers": [make.container()], "containers": [make.container()]}
    assert said(make.pod(spec)) == [
        'spec.containers[0].name: "main" is the name of initContainers[0] too; give another'
    ]


def test_one_port_name_means_one_port_in_the_whole_pod(said, make):
    ports = [[{"containerPort": n, "name": "http"}] for n in (80, 81)]
    containers = [make.container(name=f"c{n}", ports=p) for n, p in enumerate(ports)]
    assert said(make.pod({"containers": containers})) == [
        'spec.containers: port name "http" is 80 in one container and 81 in c1; give two names'
    ]
    containers[1]["ports"][0]["protocol"] = "UDP"
    assert said(make.pod({"containers": containers})) == []


def test_offline_takes_what_matters_only_to_a_process_that_runs_here(said, make):
    main = make.container(
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
        env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        securityContext={"capabilities": {"drop": ["ALL"]}},
    )
    spec = {"containers": [main], "volumes": [{"name": "v"}], "dnsPolicy": "Default"}
    assert len(said(make.pod(spec))) >= 5
    assert said(make.pod(spec), offline=True) == []


def test_offline_still_refuses_what_changes_the_answer(said, make):
    assert said(make.pod({"hostnetwork": True}), offline=True) == [
        "spec.hostnetwork: unknown field; did you mean hostNetwork?"
    ]
