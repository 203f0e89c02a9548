"""The whitened cross-correlations between the streams of a batch, as tables that both regularisers read.

Streams of one modality are compared token by token: rows are the batch's real tokens, so one covariance a modality
holds all its levels. Streams of different modalities are compared by their masked means over each sample, since their
token counts differ: rows are the samples that have both. All collectives of a data-parallel run happen in `measure`,
over the constructor's modalities in their order, whatever a rank's batch lacks.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from multifuse import checks
from multifuse.layers.intra_ced import IntraCEDOutput
from multifuse.losses.moments import Moments, Rows, moments_of
from multifuse.losses.whitening import debiased, precise, squared_correlation, whitening
from multifuse.masks import has_tokens, masked_mean
from multifuse.precision import at_least_float32, without_autocast


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
) -> tuple[str, ...]:
    """Checks the levels that a loss is given and tells their modalities."""
    if not levels:
        raise ValueError("levels must hold at least one level, got none")
    names = tuple(levels[0].shared_code) if modalities is None else modalities
    for index, level in enumerate(levels):
        if set(level.shared_code) != set(levels[0].shared_code):
            raise ValueError(
                f"levels[{index}] has modalities {sorted(level.shared_code)}, levels[0] {sorted(levels[0].shared_code)}"
            )
        checks.known_modalities(f"levels[{index}]", level.shared_code, names)
    for name, real in ({} if mask is None else mask).items():
        if real is not None and name in levels[0].shared_code:
            checks.token_mask(f"mask[{name!r}]", real, *levels[0].shared_code[name].shape[:2])
    return names


def measure(
    levels: Sequence[IntraCEDOutput],
    mask: Mapping[str, Tensor | None] | None,
    modalities: tuple[str, ...],
    eps: float,
    debias: bool,
    synchronise: bool,
) -> Correlations:
    """Measures all the correlations of a batch, in float32 or better."""
    first = next(iter(levels[0].shared_code))
    shared_rank = levels[0].shared_code[first].shape[-1]
    private_rank = levels[0].private_code[first].shape[-1]
    with without_autocast(levels[0].shared_code[first].device):
        token_rows = [_token_rows(levels, mask, name, first) for name in modalities]
        pair_rows = [_pair_rows(levels, mask, pair, first) for pair in combinations(modalities, 2)]
        moments = moments_of([*token_rows, *pair_rows], synchronise)
        tokens, pairs = moments[: len(modalities)], moments[len(modalities) :]
        within = _within_modality(tokens, len(levels), shared_rank, private_rank, eps, debias)
        across = _across_modalities(pairs, len(levels), private_rank, eps, debias, within[2])
        return Correlations(*(table.to(moments[0].covariance.dtype) for table in (*within, *across)))


def _token_rows(
    levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None] | None, name: str, first: str
) -> Rows:
    """One modality's tokens as rows of [shared | private] codes, level after level; no row where it is absent."""
    present = name in levels[0].shared_code
    source = name if present else first
    codes = [code for level in levels for code in (level.shared_code[source], level.private_code[source])]
    # Flattened first: what is concatenated is then no view, and is centred where it lies at no further cost.
    rows = torch.cat([at_least_float32(code).flatten(0, 1) for code in codes], dim=-1)
    if not present:
        return Rows(rows[:0], None)
    real = None if mask is None else mask.get(name)
    return Rows(rows, None if real is None else real.flatten())


def _pair_rows(
    levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None] | None, pair: tuple[str, str], first: str
) -> Rows:
    """Two modalities' sample means as rows of private codes, [one | other] level after level."""
    present = all(name in levels[0].private_code for name in pair)
    names = pair if present else (first, first)
    real = {name: None if mask is None else mask.get(name) for name in names}
    codes = [(level.private_code[name], real[name]) for level in levels for name in names]
    rows = torch.cat([masked_mean(at_least_float32(code), keep) for code, keep in codes], dim=-1)
    if not present:
        return Rows(rows[:0], None)
    both = [has_tokens(levels[0].private_code[name], real[name]) for name in names]
    return Rows(rows, both[0] & both[1])


def _within_modality(
    moments: list[Moments], num_levels: int, shared_rank: int, private_rank: int, eps: float, debias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    count = precise(torch.stack([moment.rows for moment in moments]))
    rank = shared_rank + private_rank
    blocks = precise(torch.stack([moment.covariance for moment in moments]))
    blocks = blocks.unflatten(-1, (num_levels, rank)).unflatten(-3, (num_levels, rank)).transpose(-3, -2)
    own = blocks.diagonal(dim1=1, dim2=2).movedim(-1, 1)  # (M, L, rank, rank)
    whiten_shared = whitening(own[..., :shared_rank, :shared_rank], eps)
    whiten_private = whitening(own[..., shared_rank:, shared_rank:], eps)
    columns = whiten_private.unsqueeze(1)
    shared_private = squared_correlation(whiten_shared.unsqueeze(2), blocks[..., :shared_rank, shared_rank:], columns)
    private_private = squared_correlation(whiten_private.unsqueeze(2), blocks[..., shared_rank:, shared_rank:], columns)
    if debias:
        shared_private = debiased(shared_private, count[:, None, None], max(shared_rank, private_rank))
        private_private = debiased(private_private, count[:, None, None], private_rank)
    return shared_private, private_private, (count > 1).to(count.dtype)


def _across_modalities(
    moments: list[Moments], num_levels: int, private_rank: int, eps: float, debias: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    if not moments:
        return like.new_zeros(0, num_levels), like.new_zeros(0)
    count = precise(torch.stack([moment.rows for moment in moments]))
    blocks = precise(torch.stack([moment.covariance for moment in moments]))
    width = 2 * private_rank
    blocks = blocks.unflatten(-1, (num_levels, width)).unflatten(-3, (num_levels, width))
    blocks = blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (P, L, 2 r_p, 2 r_p)
    correlation = squared_correlation(
        whitening(blocks[..., :private_rank, :private_rank], eps),
        blocks[..., :private_rank, private_rank:],
        whitening(blocks[..., private_rank:, private_rank:], eps),
    )
    if debias:
        correlation = debiased(correlation, count[:, None], private_rank)
    return correlation, (count > 1).to(count.dtype)
