"""The library's op, as a function of tensors, and which implementation of it runs on a device."""

from multifuse.ops.native import backend
from multifuse.ops.projection import project_capped_simplex

__all__ = ["backend", "project_capped_simplex"]
