from pathlib import Path

import pytest

from sixfold.errors import HostError
from sixfold.host.paths import Paths, cgroup_root


def test_everything_carries_the_name_of_the_instance(monkeypatch):
    monkeypatch.delenv("SIXFOLD_RUN_DIR", raising=False)
    monkeypatch.delenv("SIXFOLD_STATE_DIR", raising=False)
    paths = Paths("blue")
    assert paths.run == Path("/run/blue")
    assert paths.state == Path("/var/lib/blue")
    assert paths.bpffs == Path("/sys/fs/bpf/blue")
    assert paths.api_socket == Path("/run/blue/api.sock")
    assert paths.cgroup == cgroup_root() / "blue"


def test_run_and_state_directories_may_be_moved(monkeypatch):
    monkeypatch.setenv("SIXFOLD_RUN_DIR", "/tmp/run")
    monkeypatch.setenv("SIXFOLD_STATE_DIR", "/tmp/state")
    assert (Paths().run, Paths().state) == (Path("/tmp/run"), Path("/tmp/state"))


@pytest.mark.parametrize(
    "name",
    [pytest.param("shop/web", id="plain"), pytest.param("shop/web.v1.eu", id="pod-with-dots")],
)
def test_pod_is_known_by_the_name_of_its_namespace(name):
    paths = Paths("blue")
    assert paths.netns_owner(paths.netns(name)) == name


@pytest.mark.parametrize("file", ["bluer.shop.web", "blue", "blue.shop", "red.shop.web", "blue..x"])
def test_namespaces_of_others_have_no_owner_here(file):
    assert Paths("blue").netns_owner(Path("/run/netns") / file) is None


@pytest.mark.parametrize("instance", ["", "a.b", "a/b", "../etc", "a b"])
def test_instance_that_is_no_file_name_is_refused(instance):
    with pytest.raises(HostError, match="use letters, digits, - and _"):
        Paths(instance)


def test_cgroup_v2_is_found_where_it_is_mounted():
    assert (cgroup_root() / "cgroup.controllers").exists()
