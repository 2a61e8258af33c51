from __future__ import annotations

from sixfold.manifest.fields import NO_EFFECT, REFUSED, Refusal
from sixfold.manifest.shape import struct_type
from sixfold.manifest.support import structs


def test_a_refusal_takes_what_asks_for_nothing():
    refusal = Refusal("not here", harmless=(False,))
    assert [refusal.tolerates(v, offline=False) for v in (None, "", [], {}, False)] == [True] * 5
    assert [refusal.tolerates(v, offline=False) for v in (True, "x", 0, 1)] == [False] * 4


def test_a_local_field_is_taken_offline_only():
    refusal = Refusal("not here", local=True)
    assert refusal.tolerates("x", offline=True)
    assert not refusal.tolerates("x", offline=False)
    assert not Refusal("nowhere").tolerates("x", offline=True)


def test_every_table_is_about_a_struct_that_manifests_have():
    assert set(REFUSED) | set(NO_EFFECT) <= set(structs())


def test_no_field_is_both_refused_and_without_effect():
    for struct, refused in REFUSED.items():
        assert not set(refused) & set(NO_EFFECT.get(struct, {}))


def test_fields_without_effect_exist():
    for struct, fields in NO_EFFECT.items():
        assert set(fields) <= {field.encode_name for field in struct_type(struct).fields}
