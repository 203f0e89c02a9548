"""The library's op, as a function on tensors, and which implementation of it runs."""

from multifuse.ops.native import backend
from multifuse.ops.projection import project_capped_simplex

__all__ = ["backend", "project_capped_simplex"]
