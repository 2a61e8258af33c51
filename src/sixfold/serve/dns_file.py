"""The zone that a restarted resolver starts from, before anybody talks to it.

Written aside and renamed, so that a crash leaves the old zone or the new one; on a thread,
because encoding many records would hold up answers.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from sixfold.discovery.zone import Zone
from sixfold.host.whole import write_whole
from sixfold.serve import dns_control as control

log = logging.getLogger("sixfold.dns")


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
