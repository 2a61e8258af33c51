from __future__ import annotations

from dataclasses import replace

from sixfold.agent.pod_records import PodRecords
from sixfold.workloads.events import Termination
from sixfold.workloads.restore import ContainerRecord, PodRecord

RECORD = PodRecord(
    uid="u-1",
    key="shop/web",
    final="Failed",
    since_s={"Ready": (False, 12.5)},
    containers=(ContainerRecord("main", 3, end=Termination(1, 1.0, 2.0, message="¡boom!")),),
    ips=("10.244.0.2",),
)


def test_record_is_read_back_by_another_agent(tmp_path):
    PodRecords(tmp_path / "pods").write(RECORD)
    assert PodRecords(tmp_path / "pods").read("u-1") == RECORD


def test_absent_and_torn_records_are_none(tmp_path):
    records = PodRecords(tmp_path)
    assert records.read("u-1") is None
    (tmp_path / "u-1.json").write_text('{"uid": "u-1", ')
    assert records.read("u-1") is None


def test_same_record_is_not_written_again(tmp_path):
    records = PodRecords(tmp_path)
    records.write(RECORD)
    (tmp_path / "u-1.json").unlink()
    records.write(RECORD)
    assert not (tmp_path / "u-1.json").exists()


def test_removed_record_is_gone_and_may_be_written_anew(tmp_path):
    records = PodRecords(tmp_path)
    records.write(RECORD)
    records.remove("u-1")
    records.remove("u-1")
    assert list(tmp_path.iterdir()) == []
    records.write(RECORD)
    assert records.read("u-1") == RECORD


def test_only_wanted_records_are_kept(tmp_path):
    records = PodRecords(tmp_path)
    records.write(RECORD)
    (tmp_path / "u-2.json").write_text("{}")
    (tmp_path / "u-3.new").write_text("cut short")
    records.keep_only({"u-1"})
    assert [path.name for path in tmp_path.iterdir()] == ["u-1.json"]


def test_record_is_whole_at_every_moment_of_its_replacement(tmp_path):
    PodRecords(tmp_path).write(RECORD)
    encoded = (tmp_path / "u-1.json").read_bytes()
    (tmp_path / "u-1.new").write_bytes(encoded[:9])  # killed while writing aside
    assert PodRecords(tmp_path).read("u-1") == RECORD
    (tmp_path / "u-1.new").write_bytes(encoded)
    (tmp_path / "u-1.json").unlink()  # killed before the rename
    assert PodRecords(tmp_path).read("u-1") == RECORD
    changed = replace(RECORD, final=None)
    PodRecords(tmp_path).write(changed)
    assert PodRecords(tmp_path).read("u-1") == changed
    assert [path.name for path in tmp_path.iterdir()] == ["u-1.json"]


def test_a_record_that_cannot_be_written_holds_nobody_up_and_is_written_later(tmp_path, caplog):
    (tmp_path / "pods").write_text("in the way")
    records = PodRecords(tmp_path / "pods")
    records.write(RECORD)
    records.write(RECORD)
    assert len(caplog.records) == 1
    (tmp_path / "pods").unlink()
    records.write(RECORD)
    assert records.read("u-1") == RECORD
