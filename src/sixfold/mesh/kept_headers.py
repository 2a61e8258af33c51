"""Headers that rules look at, kept with a request as long as it lasts: it may be judged again.

Pure. What was not kept when a request began is not known later; so a header that was not there
is kept as such. For the agent, and for the last step, which reads where a request wants to go, by
a header that is gone by then, or by a name that other trust domains know. No application sees it,
and no rule of the proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2 as api

from sixfold.mesh.messages import asleep, extension, packed
from sixfold.model.mesh import DESTINATION, HEADERS_ABSENT, HEADERS_KEPT

FILTER = "envoy.filters.http.header_to_metadata"
filter_ = asleep(extension(FILTER, api.Config()))
PLACE = {"key": HEADERS_KEPT, "path": [{"key": DESTINATION}]}


def of_route(names: Iterable[str], place: str = "") -> Mapping[str, Any]:
    """What the filter is told of the requests of a route; ``place``: all of them go there."""
    rules: list[dict[str, Any]] = [
        {
            "header": name,
            "on_header_present": {"metadata_namespace": HEADERS_KEPT, "key": name},
            "on_header_missing": {
                "metadata_namespace": HEADERS_ABSENT,
                "key": name,
                "value": "absent",
            },
        }
        for name in sorted(names)
    ]
    if place:
        said = {"metadata_namespace": HEADERS_KEPT, "key": DESTINATION, "value": place}
        rules.append({"header": DESTINATION, "on_header_present": said})
    return {FILTER: packed(api.Config(request_rules=rules))} if rules else {}
