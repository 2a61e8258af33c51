"""The zone that a restarted resolver starts from, before anybody talks to it; and what else the
agent said last.

Written aside and renamed, so that a crash leaves the old zone or the new one; the zone on a thread,
because encoding many records would hold up answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from sixfold.discovery.zone import Zone
from sixfold.host.whole import write_whole
from sixfold.serve import dns_control as control

log = logging.getLogger("sixfold.dns")
T = TypeVar("T")


class ZoneFile:
    """One file; ``save`` returns at once, ``close`` when all is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1)  # one: saves happen in order

    def load(self) -> control.Load | None:
        """What was saved last; None when there is nothing that can be read."""
        try:
            return control.decode_load(self._path.read_bytes())
        except FileNotFoundError:
            log.info("%s: not there; SERVFAIL until the agent sends a zone", self._path)
        except (OSError, msgspec.MsgspecError) as error:
            log.error("%s: %s; SERVFAIL until the agent sends a zone", self._path, error)
        return None

    def save(self, settings: control.Load, zone: Zone) -> None:
        """Keep the zone as it is now; ``settings`` is a load without its records."""
        self._writer.submit(self._write, settings, dict(zone))

    def close(self) -> None:
        self._writer.shutdown()

    def _write(self, settings: control.Load, zone: Zone) -> None:
        message = msgspec.structs.replace(settings, records=control.records_of(zone))
        try:
            # An encoder of its own: the other one belongs to the event loop's thread.
            write_whole(self._path, msgspec.msgpack.encode(message))
        except OSError as error:
            log.error("%s: not saved: %s; a restarted resolver would lag", self._path, error)


def saved(path: Path, decode: Callable[[bytes], T]) -> T | None:
    """What the agent said last; None: nothing yet, or it has to say it again."""
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.error("%s: %s; waits for the agent", path, error)
        return None


def save(path: Path, message: control.Message) -> None:
    try:
        write_whole(path, control.encode(message))
    except OSError as error:
        log.error("%s: not saved: %s", path, error)
