"""Counts and covariances of streams of features, summed over the ranks of a data-parallel run.

Counts and sums are reduced over the ranks first, centred second moments after them, so that large means cost no
precision. Both reductions are differentiable and sum in the backward too: with DistributedDataParallel's averaging, N
ranks give the gradients of one process. All families of streams are reduced by the same two collectives.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as distributed
from torch import Tensor

from multifuse._internal.precision import precise


class Rows(NamedTuple):
    """Rows of features (..., N, D), 0 wherever ``real`` (..., N, 1) is 0; it is 1 elsewhere."""

    values: Tensor
    real: Tensor


class Family(NamedTuple):
    """G groups of rows with the same features: ``leading`` ones, compared with all, and then ``others`` streams.

    Every other stream has the same width, and is compared with itself and the leading features only.
    """

    batches: Sequence[Rows]
    """The groups, (g, ..., N, D); those of one batch have equally many rows."""
    num_rows: Tensor
    """(G, ...): the number of real rows."""
    sums: Tensor
    """(G, ..., D): their sums."""
    leading: int
    others: int = 0


class Moments(NamedTuple):
    """The moments of a family, in float64 where the device has it; those of features that do not vary are 0.

    They are sums over the rows: covariances times the number of rows, a factor that whitening takes out again.
    """

    num_rows: Tensor
    """(G, ...): the number of rows, or 1 without any."""
    cross: Tensor
    """(G, ..., leading, D): the centred products of the leading features with all."""
    auto: Tensor | None
    """(G, others, d, d): those of every other stream with itself."""


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
    return total.clone()  # compiled by torch 2.11, a function that returns what a collective wrote has no gradient


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


# A compiler asks for the group once, and writes it into its graph. This is what torch.compiler.assume_constant_result
# does; calling that would import the compiler with this library.
_group_of_losses._dynamo_marked_constant = True  # type: ignore[attr-defined]


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


def mean_over_ranks(values: Tensor, counted: Tensor, synchronise: bool) -> Tensor:
    """Returns the mean of those values (N,) that are counted (N,), over the samples of all ranks; 0 without any."""
    both = torch.stack([values.masked_fill(~counted, 0.0), counted.to(values.dtype)]).sum(-1)
    total, count = sum_over_ranks(both, synchronise).unbind()
    return total / count.detach().clamp(min=1.0)


def real_rows(values: Tensor, mask: Tensor | None) -> Rows:
    """Returns values (..., N, D) as rows; where ``mask`` (..., N) is False, even NaN must not spread."""
    if mask is None:
        return Rows(values, values.new_ones(1).expand(*values.shape[:-1], 1))
    real = mask.unsqueeze(-1)
    return Rows(values.masked_fill(~real, 0.0), real.to(values.dtype))


def moments_of(families: Sequence[Family], synchronise: bool) -> list[Moments]:
    """Computes the moments of every family; with ``synchronise``, over the rows of all ranks."""
    given = [[family.num_rows for family in families], [family.sums for family in families]]
    flat = sum_over_ranks(_flat(given[0] + given[1]), synchronise)
    counts, sums = flat.split([sum(tensor.numel() for tensor in tensors) for tensors in given])
    counts = counts.detach().clamp(min=1.0)
    of_count, of_sums = ([tensor.shape for tensor in tensors] for tensors in given)
    totals = _split(sums, of_sums)
    means = [total / count.unsqueeze(-1) for total, count in zip(totals, _split(counts, of_count))]
    products = [block for family in zip(families, means) for block in _products(*family)]
    flat = sum_over_ranks(_flat([product for block in products for product in block]), synchronise)
    shapes = [(sum(map(len, block)), *block[0].shape[1:]) for block in products]
    reduced = iter(_split(precise(flat), shapes))
    return [
        _moments(count, (mean * total).detach(), next(reduced), next(reduced) if family.others else None)
        for family, count, mean, total in zip(families, _split(precise(counts), of_count), means, totals)
    ]


def _products(family: Family, means: Tensor) -> list[list[Tensor]]:
    """Returns the products of the centred rows of every batch: of all features with the leading, then the others'."""
    cross, auto = [], []
    for rows, mean in zip(family.batches, means.split([len(rows.values) for rows in family.batches])):
        centred = torch.addcmul(rows.values, rows.real, mean.unsqueeze(-2), value=-1.0)  # 0 in rows that are not real
        if not family.others:
            cross.append(centred.mT @ centred)
            continue
        leading, rest = centred.split([family.leading, centred.shape[-1] - family.leading], dim=-1)
        streams = rest.unflatten(-1, (family.others, -1)).movedim(-2, -3)
        flat = streams.flatten(0, -3)  # a copy if there are several groups, which a product of them would make twice
        cross.append(centred.mT @ leading)  # in this order, gradients are laid out as the rows are
        auto.append((flat.mT @ flat).unflatten(0, streams.shape[:-2]))
    return [cross, auto] if family.others else [cross]


def _moments(count: Tensor, of_means: Tensor, cross: Tensor, auto: Tensor | None) -> Moments:
    """Sets the products of features that do not vary to 0; ``of_means`` (..., D): the squares of the means, summed."""
    leading = cross.shape[-1]
    cross = cross.mT
    steady = _steady(cross, of_means[..., :leading])
    if auto is None:
        return Moments(count, _without(cross, steady, steady), None)
    of_streams = _steady(auto, of_means[..., leading:].view(auto.shape[:-1]))
    every = torch.cat([steady, of_streams.flatten(-2)], dim=-1)
    return Moments(count, _without(cross, steady, every), _without(auto, of_streams, of_streams))


def _steady(products: Tensor, of_means: Tensor) -> Tensor:
    """Returns which of the features (..., d) vary by no more than the rounding of their mean."""
    rounding = 32 * torch.finfo(of_means.dtype).eps
    squares = products.detach().diagonal(dim1=-2, dim2=-1)
    return squares <= rounding**2 * of_means  # not NaN: it must reach the loss


def _without(products: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return products.masked_fill(rows.unsqueeze(-1) | columns.unsqueeze(-2), 0.0)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _split(flat: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Returns the parts of a flat tensor, with the given shapes."""
    return [part.view(shape) for part, shape in zip(flat.split([prod(shape) for shape in shapes]), shapes)]
