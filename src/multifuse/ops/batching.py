"""Batching rules of the ops, for `torch.vmap`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def over_rows(op: Any, outputs: int) -> Any:
    """Where leading dimensions are free, a batch dimension is one more of them."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Tensor | None) -> tuple[Any, Any]:
        moved = [_leading(arg, dim, info.batch_size) for arg, dim in zip(args, in_dims, strict=True)]
        return op(*moved), (0,) * outputs if outputs > 1 else 0

    return rule


def over_samples(op: Any, outputs: int) -> Any:
    """Where every tensor has samples first, a batch dimension is more samples."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        merged = [
            moved.flatten(0, 1) if isinstance(arg, Tensor) and (moved := _leading(arg, dim, size)) is not None else arg
            for arg, dim in zip(args, in_dims, strict=True)
        ]
        results = op(*merged)
        if outputs == 1:
            return results.unflatten(0, (size, -1)), 0
        return tuple(own.unflatten(0, (size, -1)) for own in results), (0,) * outputs

    return rule


def one_by_one(op: Any, outputs: int) -> Any:
    """Where parameters are shared by all samples and may be batched themselves: a call for each entry of the batch."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        results = [
            op(*(arg if dim is None else arg.select(dim, index) for arg, dim in zip(args, in_dims, strict=True)))
            for index in range(info.batch_size)
        ]
        if outputs == 1:
            return torch.stack(results), 0
        return tuple(torch.stack(own) for own in zip(*results, strict=True)), (0,) * outputs

    return rule


def _leading(tensor: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    if tensor is None:
        return None
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
