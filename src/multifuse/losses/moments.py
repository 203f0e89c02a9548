"""Counts and covariances of streams of features, summed over the ranks of a data-parallel run.

Counts and sums are reduced over the ranks first, centred second moments after them, so that large means cost no
precision. Both reductions are differentiable and sum in the backward too: with DistributedDataParallel's averaging, N
ranks give the gradients of one process. All groups of streams are reduced by the same two collectives.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as distributed
from torch import Tensor

from multifuse._internal.precision import at_least_float32


class Streams(NamedTuple):
    """Streams of features of the same rows, (N, d) each; the first ``leading`` ones are compared with all.

    ``mask`` (N,) bool, True = real row; ``None`` = all.
    """

    values: Sequence[Tensor]
    leading: int
    mask: Tensor | None


class Moments(NamedTuple):
    """The moments of G groups of streams of like widths, with D_l features in the leading streams and D in all."""

    rows: Tensor
    """(G,): the number of rows."""
    cross: Tensor
    """(G, D_l, D): covariances of the leading streams with all streams."""
    auto: tuple[Tensor, ...]
    """(G, d, d) for every other stream: its covariance with itself."""


class _CentredGram(torch.autograd.Function):
    """Products of centred rows (N, D): of the leading streams with all, (D_l, D), then of every other one with itself.

    Only what is compared is multiplied. The mean receives no gradient to first order: it would be the sum of ``X S``
    over the rows of centred X, which is 0. The centred rows are an output, so that autograd computes second
    derivatives, where that sum matters. ``real`` (N, 1) is 1 for rows that count and 0 for the others.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, mean: Tensor, real: Tensor | None, widths: list[int], leading: int) -> tuple[Tensor, ...]:
        centred = rows - mean
        if real is not None:
            centred.mul_(real)
        first = centred[:, : sum(widths[:leading])]
        return (centred, first.mT @ centred, *(part.mT @ part for part in centred.split(widths, dim=-1)[leading:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, _, real, ctx.widths, ctx.leading = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[0], real)
        ctx.save_for_forward(output[0], real)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        centred, real = ctx.saved_tensors
        moved = tangents[0] - tangents[1]
        moved = moved if real is None else moved * real
        width = sum(ctx.widths[: ctx.leading])
        first = moved[:, :width].mT @ centred + centred[:, :width].mT @ moved
        halves = [
            part.mT @ change
            for part, change in zip(*(rows.split(ctx.widths, dim=-1)[ctx.leading :] for rows in (centred, moved)))
        ]
        return (moved, first, *(half + half.mT for half in halves))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        centred, real = ctx.saved_tensors
        pulled = centred @ _symmetric(centred, ctx.widths, ctx.leading, grads[1], grads[2:])
        if grads[0] is None:
            return pulled, None, None, None, None
        direct = grads[0] if real is None else grads[0] * real
        return pulled + direct, -direct.sum(0), None, None, None


def _symmetric(
    like: Tensor, widths: list[int], leading: int, grad_cross: Tensor | None, grad_auto: Sequence[Tensor | None]
) -> Tensor:
    """Returns S (D, D), with which the gradient of the centred rows X is ``X S``."""
    width = sum(widths[:leading])
    grad_cross = like.new_zeros(width, sum(widths)) if grad_cross is None else grad_cross
    square, rest = grad_cross[:, :width], grad_cross[:, width:]
    blocks = [like.new_zeros(w, w) if grad is None else grad + grad.mT for w, grad in zip(widths[leading:], grad_auto)]
    upper = torch.cat([square + square.mT, rest], dim=1)
    return torch.cat([upper, torch.cat([rest.mT, torch.block_diag(*blocks)], dim=1)]) if blocks else upper


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


# The losses have a group of their own, because DistributedDataParallel's collectives run at each rank's own pace in the
# backward. It is held weakly, by the world it belongs to, so that destroying the process group ends both.
_GROUPS: WeakKeyDictionary[Any, ref[Any]] = WeakKeyDictionary()


def _group_of_losses() -> Any:
    world = distributed.group.WORLD
    group = _GROUPS[world]() if world in _GROUPS else None
    if group is None:
        group = distributed.new_group()
        _GROUPS[world] = ref(group)
    return group


def ranks(synchronise: bool) -> int:
    """Returns the number of ranks whose rows are compared together."""
    if synchronise and distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def sum_over_ranks(tensor: Tensor, synchronise: bool) -> Tensor:
    """Sums a tensor over the ranks of the default group; without two ranks or more, returns the tensor itself."""
    if ranks(synchronise) > 1:
        total: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]
        return total
    return tensor


def mean_over_ranks(values: Tensor, weight: Tensor, synchronise: bool) -> Tensor:
    """Returns the weighted mean of values (N,) over the samples of all ranks; 0 where the weights sum to 0."""
    weight = weight.to(values.dtype)
    sums = torch.stack([torch.where(weight == 0, 0.0, values * weight).sum(), weight.sum()])
    total, count = sum_over_ranks(sums, synchronise).unbind()
    return total / count.detach().clamp(min=torch.finfo(values.dtype).tiny)


def moments_of(families: Sequence[Sequence[Streams]], synchronise: bool) -> list[Moments]:
    """Computes the moments of every family of groups of like widths, in float32 or better."""
    rows = [[_rows(group) for group in family] for family in families]
    sums = [
        torch.stack([_count_and_sum(group, group_rows) for group, group_rows in zip(family, family_rows)])
        for family, family_rows in zip(families, rows)
    ]
    sums = _reduced(sums, synchronise)
    totals = [total_and_sum[:, 0].detach().clamp(min=1.0) for total_and_sum in sums]
    means = [total_and_sum[:, 1:] / total.unsqueeze(-1) for total_and_sum, total in zip(sums, totals)]
    grams = [_grams(*family) for family in zip(families, rows, means)]
    reduced = iter(_reduced([gram for family in grams for gram in family], synchronise))
    return [
        _moments(total_and_sum[:, 0].detach(), total, mean, [next(reduced) for _ in family])
        for total_and_sum, total, mean, family in zip(sums, totals, means, grams)
    ]


def _rows(group: Streams) -> Tensor:
    """Returns the streams side by side, in float32 or better; 0 in padded rows, where even NaN must not spread."""
    rows = at_least_float32(torch.cat(list(group.values), dim=-1))
    return rows if group.mask is None else rows.masked_fill(~group.mask.unsqueeze(-1), 0.0)


def _count_and_sum(group: Streams, rows: Tensor) -> Tensor:
    if group.mask is None:
        count = rows.new_full((1,), float(rows.shape[0]))
    else:
        count = group.mask.sum(dim=0, keepdim=True).to(rows.dtype)
    return torch.cat([count, rows.sum(0)])


def _grams(family: Sequence[Streams], rows: Sequence[Tensor], means: Tensor) -> list[Tensor]:
    """Returns the products of every group, stacked: of the leading streams with all, then of each other with itself."""
    products = []
    for group, values, mean in zip(family, rows, means.unbind()):
        real = None if group.mask is None else group.mask.unsqueeze(-1).to(values.dtype)
        widths = [stream.shape[-1] for stream in group.values]
        grams = _CentredGram.apply(values, mean, real, widths, group.leading)[1:]  # type: ignore[no-untyped-call]
        products.append(grams)
    return [torch.stack(grams) for grams in zip(*products)]


def _moments(rows: Tensor, total: Tensor, mean: Tensor, grams: list[Tensor]) -> Moments:
    """Returns the moments, with variance 0 for features that vary by no more than the rounding of their mean."""
    covariances = [gram / total[:, None, None] for gram in grams]
    variances = torch.cat([block.detach().diagonal(dim1=1, dim2=2) for block in covariances], dim=-1)
    # Not "<=": NaN varies, so that it reaches the loss instead of passing for a constant.
    varies = ~(variances <= (32 * torch.finfo(mean.dtype).eps * mean.detach()).square())
    leading, *others = varies.split([block.shape[1] for block in covariances], dim=-1)
    cross = torch.where(leading.unsqueeze(-1) & varies.unsqueeze(-2), covariances[0], 0.0)
    auto = (torch.where(v.unsqueeze(-1) & v.unsqueeze(-2), c, 0.0) for v, c in zip(others, covariances[1:]))
    return Moments(rows, cross, tuple(auto))


def _reduced(tensors: list[Tensor], synchronise: bool) -> list[Tensor]:
    """Sums every tensor over the ranks, in one collective."""
    flat = sum_over_ranks(torch.cat([tensor.flatten() for tensor in tensors]), synchronise)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
