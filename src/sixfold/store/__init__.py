"""Resources, numbers and addresses that outlive the agent: SQLite in WAL mode.

The store knows nothing of the kernel and plans nothing. One apply is one transaction: it is
there whole after a crash, or not at all.
"""

from sixfold.store.database import Database
from sixfold.store.numbers import Numbers
from sixfold.store.objects import Objects, Stored

__all__ = ["Database", "Numbers", "Objects", "Stored"]
