import json
import os
from pathlib import Path

import pytest

from sixfold.host import netns, sysctl
from sixfold.host.sysctl import Sysctls

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="settings of a namespace need root"),
]

KEY = "net/ipv4/ip_forward"


def in_new_namespace(work):
    def entered():
        netns.leave()
        return work()

    return netns.in_thread(entered)


def test_earlier_values_come_back(tmp_path):
    record = tmp_path / "sysctl.json"

    def work():
        before = sysctl.read(KEY)
        settings = Sysctls(record)
        assert settings.set({KEY: "1"}) == [KEY]
        assert settings.set({KEY: "1"}) == []
        Sysctls(record).restore()  # a successor's
        return before, sysctl.read(KEY)

    assert in_new_namespace(work) == ("0", "0")
    assert not record.exists()


def test_setting_that_someone_changed_after_us_is_theirs(tmp_path):
    def work():
        settings = Sysctls(tmp_path / "sysctl.json")
        settings.set({"net/ipv4/ip_default_ttl": "60"})
        Path("/proc/sys/net/ipv4/ip_default_ttl").write_text("50")
        settings.restore()
        return sysctl.read("net/ipv4/ip_default_ttl")

    assert in_new_namespace(work) == "50"


def test_first_earlier_value_is_the_one_that_counts(tmp_path):
    record = tmp_path / "sysctl.json"

    def work():
        Sysctls(record).set({"net/ipv4/ip_default_ttl": "60"})
        Sysctls(record).set({"net/ipv4/ip_default_ttl": "61"})

    in_new_namespace(work)
    assert json.loads(record.read_text()) == {"net/ipv4/ip_default_ttl": ["64", "61"]}


def test_device_that_has_gone_does_not_keep_the_rest_from_being_restored(tmp_path):
    record = tmp_path / "sysctl.json"
    record.write_text(json.dumps({KEY: ["0", "1"], "net/ipv6/conf/gone0/accept_ra": ["1", "2"]}))

    def work():
        Path("/proc/sys", KEY).write_text("1")
        Sysctls(record).restore()
        return sysctl.read(KEY)

    assert in_new_namespace(work) == "0"
