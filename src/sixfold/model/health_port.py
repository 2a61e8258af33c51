"""healthCheckNodePort: what an external load balancer is told of this node."""

from __future__ import annotations

import msgspec


class HealthPort(msgspec.Struct, frozen=True):
    """A service with ``externalTrafficPolicy: Local``, as the process that answers needs it."""

    port: int
    namespace: str
    name: str
    endpoints: int  # of this node that take new connections; 0: the node is not to be used
