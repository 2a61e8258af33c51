"""Is this flow encrypted, and who vouches for its sides?

Pure. There is no mesh yet: the answer says so, rather than nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MeshAnswer:
    """``outcome`` is "plaintext" or "mTLS"."""

    outcome: str
    text: str


def explain_mesh() -> MeshAnswer:
    """What the mesh adds to a flow between two workloads: nothing so far."""
    return MeshAnswer("plaintext", "mTLS comes with the mesh; it is not in force")
