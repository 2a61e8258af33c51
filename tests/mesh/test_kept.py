"""What was made of the same parts is the same object, as long as somebody asks for it."""

from sixfold.mesh.kept import Kept


def test_the_same_parts_give_the_same_object_and_others_another():
    kept = Kept()
    first = kept.of("a", (1,), object)
    assert kept.of("a", (1,), object) is first
    assert kept.of("a", (2,), object) is not first


def test_what_was_not_asked_for_between_two_rounds_is_made_anew():
    kept = Kept()
    first = kept.of("a", (1,), object)
    kept.forget()
    assert kept.of("a", (1,), object) is first
    kept.forget()
    kept.forget()
    assert kept.of("a", (1,), object) is not first
