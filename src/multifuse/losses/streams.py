"""The whitened cross-correlations between the streams of a batch, as tables that both regularisers read.

Streams of one modality are compared token by token: rows are the real tokens of the batch, so one table of covariances
per modality holds all its levels, except those between shared codes of different levels, which nothing reads. Streams
of different modalities are compared by their masked means over each sample, since their token counts differ: rows are
the samples that have both. All collectives of a data-parallel run happen in `measure`, over the constructor's
modalities in their order, whatever the batch of a rank lacks.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multifuse._internal import checks, devices
from multifuse._internal.masks import masks_of_all
from multifuse._internal.packing import are_equal
from multifuse._internal.precision import at_least_float32, without_autocast
from multifuse.layers.exchange import IntraCEDOutput
from multifuse.losses.moments import Family, Moments, Rows, moments_of, real_rows
from multifuse.losses.whitening import debiased, squared_correlation, whitening


class Correlations(NamedTuple):
    """Mean squared canonical correlations, averaged over the modalities, or pairs of them, with two rows or more."""

    shared_private: Tensor
    """(L, L): shared codes of level l (row) with private codes of level l' (column) of one modality."""
    private_private: Tensor
    """(L, L): private codes of level l with private codes of level l' of one modality; symmetric."""
    across_modalities: Tensor
    """(L,): private codes of two modalities at one level; 0 without a pair."""


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
    first = next(iter(levels[0].private_code.values()))
    num_levels, private_rank = len(levels), first.shape[-1]
    with without_autocast(first.device):
        rows = [_rows(levels, mask, names) for names in _batches(levels, modalities)]
        count = _joined([batch.real.sum(2) for batch in rows])  # (M, B, 1)
        sums = _joined([batch.values.sum(2) for batch in rows])  # (M, B, L r_p + L r_s)
        tokens = [Rows(*(part.flatten(1, 2) for part in batch)) for batch in rows]
        within = Family(tokens, count.sum((1, 2)), sums.sum(1), num_levels * private_rank, num_levels)
        across = _pairs(sums[..., : num_levels * private_rank].unflatten(-1, (num_levels, private_rank)), count)
        of_tokens, of_samples = moments_of([within, across], synchronise)
        return _correlations(of_tokens, of_samples, eps, debias, sums.dtype)


def _batches(levels: Sequence[IntraCEDOutput], modalities: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns, on a GPU, all modalities as one batch where they have equally many tokens, else each by itself."""
    codes = levels[0].shared_code
    apart: list[tuple[str, ...]] = [(name,) for name in modalities]
    if not all(name in codes for name in modalities):
        return apart
    on_gpu = devices.is_gpu(codes[modalities[0]].device)
    return [modalities] if on_gpu and are_equal([codes[name].shape[1] for name in modalities]) else apart


def _rows(levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None], names: tuple[str, ...]) -> Rows:
    """Returns the tokens (m, B, T, L r_p + L r_s) of a batch of m modalities, private before shared codes.

    An absent modality has T = 0.
    """
    if names[0] not in levels[0].shared_code:
        absent = _rows(levels, {}, (next(iter(levels[0].shared_code)),))
        return Rows(*(part[:, :, :0] for part in absent))
    streams = [level.private_code for level in levels] + [level.shared_code for level in levels]
    tokens = at_least_float32(torch.cat([codes[name] for name in names for codes in streams], dim=-1))
    tokens = tokens.unflatten(-1, (len(names), -1)).movedim(-2, 0)
    masks = masks_of_all([(of_modality, mask.get(name)) for of_modality, name in zip(tokens, names, strict=True)])
    return real_rows(tokens, None if masks is None else torch.stack(masks))


def _joined(batches: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(batches)) if len(batches) > 1 else batches[0]


def _pairs(sums: Tensor, count: Tensor) -> Family:
    """Returns the samples that have both modalities of a pair as rows (P, L, B, 2 r_p) of their means.

    ``sums`` (M, B, L, r_p) are those of a sample's tokens, ``count`` (M, B, 1) their number.
    """
    means = (sums / count.clamp(min=1.0).unsqueeze(-1)).transpose(1, 2)  # (M, L, B, r_p)
    pairs = torch.triu_indices(len(sums), len(sums), 1, device=sums.device).flatten()
    one, other = means.index_select(0, pairs).chunk(2)
    has_one, has_other = count.clamp(max=1.0).index_select(0, pairs).unsqueeze(1).chunk(2)
    both = has_one * has_other  # (P, 1, B, 1)
    rows = torch.cat([one, other], dim=-1) * both
    rank = rows.shape[-1]
    return Family([Rows(rows, both)], both.sum((-2, -1)), rows.sum(-2), rank)


def _correlations(within: Moments, across: Moments, eps: float, debias: bool, dtype: torch.dtype) -> Correlations:
    """Whitens all covariances, and averages the correlations in the dtype of the result."""
    assert within.auto is not None
    num_levels, shared_rank = within.auto.shape[1], within.auto.shape[-1]
    rows = within.cross.unflatten(1, (num_levels, -1))  # (M, L, r_p, L r_p + L r_s)
    private_rank = rows.shape[2]
    widths = [num_levels * private_rank, num_levels * shared_rank]
    blocks = across.cross.unflatten(-1, (2, private_rank)).unflatten(-3, (2, private_rank))
    covariances = [
        rows[..., : widths[0]].unflatten(-1, (num_levels, -1)).diagonal(dim1=1, dim2=3).movedim(-1, 1).flatten(0, 1),
        blocks.diagonal(dim1=2, dim2=4).movedim(-1, 2).flatten(0, 2),
    ]  # of the private codes of every modality and level, and of every pair, level and modality of the pair
    private, of_pairs = whitening(torch.cat(covariances), eps).split([len(part) for part in covariances])
    private = private.unflatten(0, (-1, num_levels))
    one, other = of_pairs.unflatten(0, (-1, num_levels, 2)).unbind(2)
    with_private, with_shared = (private @ rows).split(widths, dim=-1)
    shared_private = _table(with_shared, whitening(within.auto, eps))
    private_private = _table(with_private, private)
    across_modalities = squared_correlation(one, blocks[:, :, 0, :, 1], other)
    tables = [shared_private, private_private, across_modalities]
    values = torch.cat([table.flatten() for table in tables])
    if debias:
        of_levels = within.num_rows.view(1, -1, 1).expand(2, -1, num_levels**2)
        num_rows = torch.cat([of_levels.flatten(), across.num_rows.expand_as(across_modalities).flatten()])
        widest = torch.full_like(values, private_rank)
        widest[: shared_private.numel()] = max(shared_rank, private_rank)
        values = debiased(values, num_rows, widest)
    of_tokens, of_samples = values.to(dtype).split([2 * shared_private.numel(), across_modalities.numel()])
    of_levels = _shares(within.num_rows, dtype) @ of_tokens.view(2, -1, num_levels**2)
    shared_private, private_private = of_levels.view(2, num_levels, num_levels).unbind()
    across_modalities = _shares(across.num_rows.flatten(), dtype) @ of_samples.view(-1, num_levels)
    return Correlations(shared_private, private_private, across_modalities)


def _table(whitened: Tensor, whiten_columns: Tensor) -> Tensor:
    """Returns the correlations (M, L, L) of the columns and rows of all levels, of covariances with whitened rows.

    ``whitened`` is (M, L, r, L c), ``whiten_columns`` (M, L, c, c).
    """
    num_levels, rows, columns = whitened.shape[1], whitened.shape[2], whiten_columns.shape[-1]
    by_column = whitened.unflatten(-1, (num_levels, columns)).movedim(-2, 1).flatten(2, 3)  # (M, L, L r, c)
    correlation = (by_column @ whiten_columns.mT).unflatten(2, (num_levels, rows))
    table: Tensor = correlation.square().sum(dim=(-2, -1)) / min(rows, columns)
    return table


def _shares(num_rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the weights (G,) of the mean over the groups that have two rows or more."""
    measured = (num_rows > 1).to(dtype)
    shares: Tensor = measured / measured.sum().clamp(min=1.0)
    return shares
