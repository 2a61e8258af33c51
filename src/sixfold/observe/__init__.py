"""Flow records: decode, join with names and rules, filter, render. Pure: no I/O, no clock.

FlowLog ── bytes of struct flow_event ─▶ join(event, names, offset) ─▶ Flow
                                                      │
                 FlowFilter.matches ◀────────────────┤
                 to_hubble · response · compact ◀────┘
"""

from sixfold.observe.filter import FilterError, FlowFilter, parse_time_ns
from sixfold.observe.hits import PolicyHits, policy_hits
from sixfold.observe.join import RawEvent, join
from sixfold.observe.log import Batch, FlowLog, Search
from sixfold.observe.names import (
    Names,
    Owner,
    ServiceName,
    cidr_labels,
    domain_labels,
    identity_labels,
)
from sixfold.observe.render import compact, response, to_hubble

__all__ = [
    "Batch",
    "FilterError",
    "FlowFilter",
    "FlowLog",
    "Names",
    "Owner",
    "PolicyHits",
    "RawEvent",
    "Search",
    "ServiceName",
    "cidr_labels",
    "compact",
    "domain_labels",
    "identity_labels",
    "join",
    "parse_time_ns",
    "policy_hits",
    "response",
    "to_hubble",
]
