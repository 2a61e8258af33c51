from __future__ import annotations

from random import Random

import msgspec

from sixfold.model.workload import PodTemplateSpec
from sixfold.workloads.template import ALPHABET, random_name, template_hash


def template(**container):
    raw = {"spec": {"containers": [{"name": "main", "command": ["x"], **container}]}}
    return msgspec.convert(raw, PodTemplateSpec)


def test_equal_templates_have_equal_hashes_and_others_do_not():
    assert template_hash(template()) == template_hash(template())
    assert template_hash(template()) != template_hash(template(args=["y"]))


def test_written_default_is_no_change():
    """kubectl apply of the same manifest, defaults spelled out, must not roll anything."""
    assert template_hash(template()) == template_hash(template(image="", args=[]))


def test_order_of_labels_is_no_change():
    one, two = template(), template()
    one.metadata.labels = {"a": "1", "b": "2"}
    two.metadata.labels = {"b": "2", "a": "1"}
    assert template_hash(one) == template_hash(two)


def test_hash_is_ten_letters_of_the_safe_alphabet():
    made = template_hash(template())
    assert len(made) == 10
    assert set(made) <= set(ALPHABET)


def test_name_avoids_those_taken():
    first = random_name("web-", Random(1), set())
    assert random_name("web-", Random(1), {first}) != first
