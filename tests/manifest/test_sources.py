from __future__ import annotations

import io
import os

import pytest

from sixfold.errors import ManifestError
from sixfold.manifest import load, sources

NAMESPACE = "{{apiVersion: v1, kind: Namespace, metadata: {{name: {}}}}}"


def names(*given, stdin=None):
    return [loaded.key.name for loaded in load(given, stdin).objects]


def complaint(*given, stdin=None):
    with pytest.raises(ManifestError) as caught:
        load(given, stdin)
    return str(caught.value)


def test_a_folder_is_read_in_order_and_in_depth(tmp_path):
    (tmp_path / "b").mkdir()
    for file in ("c.yaml", "a.yml", "b/d.json", "ignored.txt"):
        stem = file.rpartition("/")[2].partition(".")[0]
        (tmp_path / file).write_text(NAMESPACE.format(stem))
    assert names(tmp_path) == ["a", "c", "d"]


def test_a_file_that_is_named_may_have_any_ending(tmp_path):
    (tmp_path / "x.txt").write_text(NAMESPACE.format("x"))
    assert names(str(tmp_path / "x.txt")) == ["x"]


def test_a_dash_is_standard_input():
    assert names("-", stdin=io.StringIO(NAMESPACE.format("x"))) == ["x"]


def test_a_file_that_is_named_twice_is_read_once(tmp_path):
    (tmp_path / "x.yaml").write_text(NAMESPACE.format("x"))
    assert names(tmp_path, tmp_path / "x.yaml") == ["x"]


def test_a_missing_file_is_named(tmp_path):
    assert complaint(tmp_path / "no.yaml") == (
        f"{tmp_path}/no.yaml: no such file or directory; give a file, a folder or -"
    )


def test_a_folder_without_manifests_is_an_error(tmp_path):
    assert complaint(tmp_path) == (
        f"{tmp_path}: holds no manifest; give a folder with *.yaml, *.yml, *.json"
    )


def test_every_unreadable_source_is_named_at_once(tmp_path):
    assert len(complaint(tmp_path / "a", tmp_path / "b").splitlines()) == 2


def test_bytes_that_are_not_utf8_are_located(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: 1\nb: \xff\n")
    assert complaint(tmp_path / "x.yaml") == (
        f"{tmp_path}/x.yaml:2: byte 0xff is not UTF-8; save the file as UTF-8"
    )


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbf" + NAMESPACE.format("x").encode())
    assert names(tmp_path / "x.yaml") == ["x"]


def test_more_than_the_bound_is_refused_without_reading_it_all(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "TOTAL_BYTES_MAX", 1 << 20)
    (tmp_path / "x.yaml").write_text("#" * (2 << 20))
    assert complaint(tmp_path / "x.yaml").endswith(
        "more than 1 MiB of manifests; apply them in parts"
    )
    assert "more than 1 MiB" in complaint("/dev/zero")


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "x.yaml").write_text(NAMESPACE.format("x"))
    os.symlink(tmp_path, tmp_path / "again")
    assert names(tmp_path) == ["x"]
