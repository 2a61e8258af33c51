"""Work that makes a million values and no cycles, without the cycle collector amid it.

It would walk all that is kept, again and again, and find nothing: half of the time of a large
compile.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """The collector is off in the body, and afterwards as before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
