from __future__ import annotations

import pytest

from sixfold.manifest import decode, requires_runtime


def told(raw):
    return [str(problem) for problem in requires_runtime(decode(raw).object, "shop.yaml", 3)]


@pytest.mark.parametrize("image", ["", "host"])
def test_a_command_of_the_host_runs(make, image):
    assert told(make.pod({"containers": [make.container(image=image)]})) == []


def test_an_image_would_have_to_be_run_elsewhere(make):
    assert told(make.pod({"containers": [make.container(image="nginx:1.27")]})) == [
        'shop.yaml:3: spec.containers[0].image: "nginx:1.27": images are not run here;'
        " give image: host and a command, or attach containers by CNI, see docs/support.md"
    ]


def test_without_an_image_a_command_is_needed(make):
    assert told(make.pod({"containers": [{"name": "a", "image": "host", "args": ["x"]}]})) == [
        "shop.yaml:3: spec.containers[0].command: is required, there is no image to name one;"
        " add it"
    ]


def test_init_containers_and_templates_are_looked_at_too(make):
    raw = make.deployment()
    raw["spec"]["template"]["spec"]["initContainers"] = [make.container(name="i", image="busybox")]
    (line,) = told(raw)
    assert line.startswith("shop.yaml:3: spec.template.spec.initContainers[0].image:")


def test_a_process_that_must_not_be_root_needs_a_user(make):
    context = {"runAsNonRoot": True}
    (line,) = told(make.pod({"securityContext": context}))
    assert line.endswith("runAsNonRoot is true and the user would be root; give runAsUser")
    assert told(make.pod({"securityContext": {**context, "runAsUser": 5}})) == []
    inner = make.container(securityContext={"runAsUser": 5})
    assert told(make.pod({"securityContext": context, "containers": [inner]})) == []


def test_what_does_not_run_needs_no_runtime(make):
    assert told(make.service()) == told(make.policy()) == told(make.namespace()) == []


def test_load_minds_images_only_when_it_is_to_run(make, said):
    raw = make.pod({"containers": [make.container(image="nginx")]})
    assert said(raw) == said(raw, offline=True) == []
    assert len(said(raw, runnable=True)) == 1
