"""The whitened cross-correlations between the streams of a batch, as tables that both regularisers read.

Streams of one modality are compared token by token: rows are the real tokens of the batch, so one table of covariances
per modality holds all its levels, except those between shared codes of different levels, which nothing reads. Streams
of different modalities are compared by their masked means over each sample, since their token counts differ: rows are
the samples that have both. All collectives of a data-parallel run happen in `measure`, over the constructor's
modalities in their order, whatever the batch of a rank lacks.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from multifuse._internal import checks
from multifuse._internal.masks import has_tokens, masked_mean
from multifuse._internal.precision import at_least_float32, without_autocast
from multifuse.layers.intra_ced import IntraCEDOutput
from multifuse.losses.moments import Moments, Streams, moments_of
from multifuse.losses.whitening import debiased, precise, squared_correlation, whitening


class Correlations(NamedTuple):
    """Mean squared canonical correlations; each table has a weight, 1 where it was measured on two rows or more."""

    shared_private: Tensor
    """(M, L, L): shared codes of level l (row) with private codes of level l' (column) of one modality."""
    private_private: Tensor
    """(M, L, L): private codes of level l with private codes of level l' of one modality."""
    measured: Tensor
    """(M,): the weight of the two tables above."""
    across_modalities: Tensor
    """(P, L): private codes of the two modalities of a pair at one level, pairs in the order of combinations."""
    measured_across: Tensor
    """(P,): its weight."""


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Averages values (K, ...) over all entries of the rows with weight; 0 without any."""
    per_row = values.flatten(1).mean(1) if values.ndim > 1 else values
    return (per_row * weight).sum() / weight.sum().clamp(min=1.0)


def checked(
    levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None] | None, modalities: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, Tensor | None]]:
    """Checks the levels that a loss is given; returns their modalities, and their masks as bool."""
    checks.levels(levels)
    if not levels:
        raise ValueError("levels must hold at least one level, got none")
    names = tuple(levels[0].shared_code) if modalities is None else modalities
    for index, level in enumerate(levels):
        checks.known_modalities(f"levels[{index}]", level.shared_code, names)
        for name, code in level.shared_code.items():
            shapes = [tuple(given.shape) for given in (code, levels[0].shared_code[name])]
            if shapes[0] != shapes[1]:
                raise ValueError(f"levels[{index}] has codes {shapes[0]} of {name!r}, levels[0] {shapes[1]}")
    masks = {} if mask is None else dict(mask)
    if modalities is not None or not set(levels[0].shared_code) <= set(masks):
        checks.known_modalities("mask", masks, names)  # else the others may be modalities that the batch lacks
    for name, real in masks.items():
        if real is not None and name in levels[0].shared_code:
            masks[name] = checks.token_mask(f"mask[{name!r}]", real, *levels[0].shared_code[name].shape[:2])
    return names, masks


def measure(
    levels: Sequence[IntraCEDOutput],
    mask: Mapping[str, Tensor | None],
    modalities: tuple[str, ...],
    eps: float,
    debias: bool,
    synchronise: bool,
) -> Correlations:
    """Measures all the correlations of a batch, in float32 or better; with ``synchronise``, over all ranks."""
    first = next(iter(levels[0].shared_code))
    with without_autocast(levels[0].shared_code[first].device):
        means = {name: _private_means(levels, mask, name) for name in levels[0].private_code}
        token_rows = [_token_rows(levels, mask, name, first) for name in modalities]
        pair_rows = [_pair_rows(levels, mask, pair, means) for pair in combinations(modalities, 2)]
        families = [token_rows, pair_rows] if pair_rows else [token_rows]
        tokens, *pairs = moments_of(families, synchronise)
        within = _within_modality(tokens, eps, debias)
        across = _across_modalities(pairs[0] if pairs else None, len(levels), eps, debias, within[2])
        return Correlations(*(table.to(tokens.cross.dtype) for table in (*within, *across)))


def _token_rows(levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None], name: str, first: str) -> Streams:
    """Returns the tokens of a modality as rows of private and shared codes of all levels; no row if it is absent."""
    present = name in levels[0].shared_code
    source = name if present else first
    private = [level.private_code[source].flatten(0, 1) for level in levels]
    shared = [level.shared_code[source].flatten(0, 1) for level in levels]
    if not present:
        return Streams([code[:0] for code in (*private, *shared)], len(levels), None)
    real = mask.get(name)
    return Streams([*private, *shared], len(levels), None if real is None else real.flatten())


def _private_means(levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None], name: str) -> list[Tensor]:
    real = mask.get(name)
    return [masked_mean(at_least_float32(level.private_code[name]), real) for level in levels]


def _pair_rows(
    levels: Sequence[IntraCEDOutput],
    mask: Mapping[str, Tensor | None],
    pair: tuple[str, str],
    means: Mapping[str, list[Tensor]],
) -> Streams:
    """Returns the sample means of two modalities as rows of private codes: every level of one, then of the other."""
    if any(name not in means for name in pair):
        no_rows = [mean[:0] for mean in next(iter(means.values()))]
        return Streams([*no_rows, *no_rows], 2 * len(levels), None)
    has = [has_tokens(levels[0].private_code[name], mask.get(name)) for name in pair]
    return Streams([*means[pair[0]], *means[pair[1]]], 2 * len(levels), has[0] & has[1])


def _within_modality(moments: Moments, eps: float, debias: bool) -> tuple[Tensor, Tensor, Tensor]:
    count = precise(moments.rows)
    whiten_shared = whitening(precise(torch.stack(moments.auto, dim=1)), eps)  # (M, L, r_s, r_s)
    num_levels, shared_rank = whiten_shared.shape[1], whiten_shared.shape[-1]
    rows = precise(moments.cross).unflatten(1, (num_levels, -1))  # (M, L, r_p, L r_p + L r_s)
    private_rank = rows.shape[2]
    private, shared = rows.split([num_levels * private_rank, num_levels * shared_rank], dim=-1)
    covariances = private.unflatten(-1, (num_levels, -1)).diagonal(dim1=1, dim2=3).movedim(-1, 1)
    whiten_private = whitening(covariances, eps)
    private_private = _table(whiten_private, private, whiten_private)
    shared_private = _table(whiten_private, shared, whiten_shared)
    if debias:
        shared_private = debiased(shared_private, count[:, None, None], max(shared_rank, private_rank))
        private_private = debiased(private_private, count[:, None, None], private_rank)
    return shared_private, private_private, (count > 1).to(count.dtype)


def _table(whiten_rows: Tensor, cross: Tensor, whiten_columns: Tensor) -> Tensor:
    """Returns the correlations (M, L, L) between the rows and columns of all levels, of covariances (M, L, r, L c)."""
    num_levels, rows, columns = whiten_rows.shape[1], whiten_rows.shape[-1], whiten_columns.shape[-1]
    whitened = (whiten_rows @ cross).unflatten(-1, (num_levels, columns)).movedim(-2, 1)  # (M, L, L, r, c)
    correlation: Tensor = whitened.flatten(2, 3) @ whiten_columns.mT
    table: Tensor = correlation.square().unflatten(2, (num_levels, rows)).sum(dim=(-2, -1)) / min(rows, columns)
    return table


def _across_modalities(
    moments: Moments | None, num_levels: int, eps: float, debias: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    if moments is None:
        return like.new_zeros(0, num_levels), like.new_zeros(0)
    count = precise(moments.rows)
    blocks = precise(moments.cross).unflatten(-1, (2, num_levels, -1)).unflatten(1, (2, num_levels, -1))
    one, cross, other = (blocks[:, a, ..., b, :, :].diagonal(dim1=1, dim2=3).movedim(-1, 1) for a, b in _BLOCKS)
    correlation = squared_correlation(whitening(one, eps), cross, whitening(other, eps))
    if debias:
        correlation = debiased(correlation, count[:, None], cross.shape[-1])
    return correlation, (count > 1).to(count.dtype)


_BLOCKS = ((0, 0), (0, 1), (1, 1))
"""The blocks of two modalities' covariances: of the one, between them, of the other."""
