"""Counts, means and covariances of rows, summed over the ranks of a data-parallel run.

Rows are collected on each rank; counts and sums are reduced first, centred second moments after, so that large means
cost no precision. Both reductions are differentiable and sum in the backward too: with DistributedDataParallel's
averaging, N ranks give one process's gradients. Several groups of rows share the two collectives.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as distributed
from torch import Tensor

from multifuse.precision import at_least_float32


class Rows(NamedTuple):
    """Rows of features ``values`` (N, D), the holder's own, of which ``mask`` (N,) bool names the real ones (all)."""

    values: Tensor
    mask: Tensor | None


class Moments(NamedTuple):
    """The number of rows, a scalar, and their covariance (D, D), divided by that number."""

    rows: Tensor
    covariance: Tensor


class _Gram(torch.autograd.Function):
    """``X^T X``, with one product in its backward, ``X (G + G^T)``, where autograd's own takes two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.mT @ values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        half = values.mT @ tangents[0]
        product: Tensor = half + half.mT
        return product

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        product: Tensor = values @ (grads[0] + grads[0].mT)
        return product


class _SumOverRanks(torch.autograd.Function):
    """Sums over all ranks, in the forward and in the backward."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return _summed(grads[0])


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total, group=_group_of_losses())
    return total


# Of the losses alone: DistributedDataParallel's collectives run at each rank's own pace in the backward. Held weakly,
# by the world it belongs to, so that destroying the process group ends both.
_GROUPS: WeakKeyDictionary[Any, ref[Any]] = WeakKeyDictionary()


def _group_of_losses() -> Any:
    world = distributed.group.WORLD
    group = _GROUPS[world]() if world in _GROUPS else None
    if group is None:
        group = distributed.new_group()
        _GROUPS[world] = ref(group)
    return group


def sum_over_ranks(tensor: Tensor, synchronise: bool) -> Tensor:
    """Sums a tensor over the ranks of the default group; without a group of two or more, the tensor itself."""
    if synchronise and distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        total: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]
        return total
    return tensor


def mean_over_ranks(values: Tensor, weight: Tensor, synchronise: bool) -> Tensor:
    """Weighted mean of values (N,) over the samples of all ranks; 0 where the weights sum to 0."""
    weight = weight.to(values.dtype)
    sums = torch.stack([torch.where(weight > 0, values * weight, 0.0).sum(), weight.sum()])
    total, count = sum_over_ranks(sums, synchronise).unbind()
    return total / count.detach().clamp(min=torch.finfo(values.dtype).tiny)


def moments_of(groups: Sequence[Rows], synchronise: bool) -> list[Moments]:
    """Computes the moments of every group of rows, in float32 or better. The rows are centred where they lie."""
    groups = [Rows(at_least_float32(group.values), group.mask) for group in groups]
    groups = [Rows(_zeroed(group.values, group.mask), group.mask) for group in groups]
    counts = [_count(group) for group in groups]
    first = _reduced([torch.cat([count[None], rows.values.sum(0)]) for count, rows in zip(counts, groups)], synchronise)
    totals = [vector[0].detach() for vector in first]
    centred = [
        _zeroed(rows.values.sub_(vector[1:] / total.clamp(min=1.0)), rows.mask)
        for rows, vector, total in zip(groups, first, totals, strict=True)
    ]
    second = _reduced([_gram(values) for values in centred], synchronise)
    return [
        Moments(total, _without_rounding(gram / total.clamp(min=1.0), vector[1:] / total.clamp(min=1.0)))
        for total, gram, vector in zip(totals, second, first, strict=True)
    ]


def _gram(values: Tensor) -> Tensor:
    product: Tensor = _Gram.apply(values)  # type: ignore[no-untyped-call]
    return product


def _without_rounding(covariance: Tensor, mean: Tensor) -> Tensor:
    """Takes out features that vary by no more than the rounding of their mean: a constant has no variance."""
    rounding = 32 * torch.finfo(covariance.dtype).eps * mean.detach()
    varies = covariance.detach().diagonal() > rounding.square()
    return torch.where(varies.unsqueeze(-1) & varies, covariance, 0.0)


def _reduced(tensors: list[Tensor], synchronise: bool) -> list[Tensor]:
    """Sums every tensor over the ranks, in one collective."""
    flat = sum_over_ranks(torch.cat([tensor.flatten() for tensor in tensors]), synchronise)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _count(rows: Rows) -> Tensor:
    if rows.mask is None:
        return rows.values.new_full((), float(rows.values.shape[0]))
    return rows.mask.sum().to(rows.values.dtype)


def _zeroed(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.masked_fill(~mask.unsqueeze(-1), 0.0)
