"""An optimizer that keeps every law, and many that differ in one thing, each with the laws that this breaks."""

from lawbreakers import construction, states, stepping, tensors
from lawbreakers.descent import LAWBREAKERS, Descent

__all__ = ["LAWBREAKERS", "Descent", "construction", "states", "stepping", "tensors"]
