from __future__ import annotations

from sixfold.manifest.path import overlap, show


def test_a_path_reads_like_the_yaml():
    assert show(("spec", "ingress", 0, "ports", 1, "endPort")) == "spec.ingress[0].ports[1].endPort"
    assert show(()) == ""


def test_keys_that_are_no_plain_words_are_quoted():
    assert show(("metadata", "labels", "a.b/c")) == 'metadata.labels["a.b/c"]'


def test_paths_overlap_when_one_contains_the_other():
    assert overlap(("spec",), ("spec", "ports", 0))
    assert overlap((), ("spec",))
    assert not overlap(("spec", "ports", 0), ("spec", "ports", 1))
