import re

from hypothesis import given
from hypothesis import strategies as st

from sixfold.mesh.ports import pattern

PORT = st.integers(0, 65535)


@given(st.lists(st.tuples(PORT, PORT).map(sorted).map(tuple), min_size=1, max_size=3), PORT)
def test_a_pattern_matches_the_ports_of_its_spans_and_no_other(spans, port):
    edges = {edge + step for span in spans for edge in span for step in (-1, 0, 1)}
    written = re.compile(pattern(spans))
    for one in edges | {port}:
        inside = any(first <= one <= last for first, last in spans)
        assert bool(written.fullmatch(str(one))) == inside


def test_a_port_with_a_leading_zero_is_no_port():
    assert not re.fullmatch(pattern([(0, 65535)]), "080")
