"""The library's ops, as functions of tensors, and which implementation of them runs on a device."""

from multifuse.ops.native import backend
from multifuse.ops.projection import project_capped_simplex
from multifuse.ops.selection import KeptTokens, keep_top, soft_topk

__all__ = ["KeptTokens", "backend", "keep_top", "project_capped_simplex", "soft_topk"]
