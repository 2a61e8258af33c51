"""The policy languages: each compiles its objects to ``ir``, and knows nothing of the others."""

from sixfold.policy.languages.lower import Lowered, lower

__all__ = ["Lowered", "lower"]
