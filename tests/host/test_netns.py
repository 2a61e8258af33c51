import os
import threading
import uuid

import pytest

from sixfold.errors import HostError
from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


@pytest.fixture
def path():
    path = NETNS_ROOT / f"t4-{uuid.uuid4().hex[:8]}"
    yield path
    netns.delete(path)


def test_namespace_is_prepared_before_anyone_can_enter(path):
    cookie = netns.create(path, netns.cookie)
    assert cookie == netns.run_inside(path, netns.cookie)
    assert cookie != netns.cookie()


def test_failure_to_prepare_leaves_no_namespace(path):
    with pytest.raises(ZeroDivisionError):
        netns.create(path, lambda: 1 // 0)
    assert not path.exists()


def test_name_in_use_is_refused_and_kept(path):
    cookie = netns.create(path, netns.cookie)
    with pytest.raises(HostError, match="exists; remove it first"):
        netns.create(path, lambda: None)
    assert netns.run_inside(path, netns.cookie) == cookie


def test_inside_moves_this_thread_only_and_back(path):
    inner = netns.create(path, netns.cookie)
    outer = netns.cookie()
    seen = []
    other = threading.Thread(target=lambda: seen.append(netns.cookie()))
    other.start()
    with netns.inside(path):
        assert netns.cookie() == inner
    other.join()
    assert netns.cookie() == outer == seen[0]


def test_thread_comes_back_when_the_body_raises(path):
    netns.create(path, lambda: None)
    outer = netns.cookie()
    with pytest.raises(ZeroDivisionError), netns.inside(path):
        _ = 1 // 0
    assert netns.cookie() == outer


def test_leftover_file_is_no_namespace_and_can_be_deleted(path):
    path.touch()
    assert not netns.exists(path)
    netns.delete(path)
    assert not path.exists()
    netns.delete(path)


def test_entering_what_is_not_there_is_an_error(path):
    with pytest.raises(HostError, match="does not exist"), netns.inside(path):
        pass


def test_mount_of_the_directory_is_made_once(path):
    """Each further one would double the number of mounts: they are shared."""

    def mounts():
        with open("/proc/self/mountinfo") as file:
            return sum(line.split()[4] == str(NETNS_ROOT) for line in file)

    netns.create(path, lambda: None)
    before = mounts()
    netns._shared.clear()
    netns.delete(path)
    netns.create(path, lambda: None)
    assert mounts() == before == 1
