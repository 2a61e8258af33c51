"""Work that makes a million values and no cycles, without the cycle collector amid it.

It would walk all that is kept, again and again, and find nothing: half of the time of a large
compile. Nor does it look at them afterwards: where many were made, all that lives is put aside
for good (``gc.freeze``), so that the next collections, of which an agent has one every now and
then, are short. What is let go of is freed all the same, as nearly everything is: by its count.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100_000  # new objects: a walk over them takes longer than anybody should wait


@contextmanager
def uncollected() -> Iterator[None]:
    """The collector is off in the body, and afterwards as before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if gc.get_count()[0] > MANY:
                gc.freeze()
            gc.enable()
