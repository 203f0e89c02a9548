"""Means over the real tokens of every modality, of a sample as a whole or of equal parts of its time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multifuse._internal.masks import joined_mask
from multifuse._internal.precision import at_least_float32, without_autocast


class Pooling(NamedTuple):
    """Averages tokens of M modalities, which lie one after the other, by one matrix product."""

    weights: Tensor
    """(B, S M, T): the weight of every token in the mean of every segment and modality."""
    present: Tensor
    """(B S, M) in float32: 1 where a sample, or a segment of it, has a real token of the modality."""

    def means(self, packed: Tensor) -> Tensor:
        """Returns the means of tokens (L, B, T, width), 0 at padding: (B S, L, M, width), 0 for no token."""
        with without_autocast(packed.device):
            values = at_least_float32(packed)
            pooled = self.weights.to(values.dtype).expand(len(packed), -1, -1, -1) @ values
        modalities = self.present.shape[-1]
        means: Tensor = pooled.to(packed.dtype).unflatten(2, (-1, modalities)).permute(1, 2, 0, 3, 4).flatten(0, 1)
        return means


def pooling_of(
    tokens: Mapping[str, Tensor], mask: Mapping[str, Tensor | None], modalities: Sequence[str], segments: int | None
) -> Pooling:
    """Returns the pooling of tokens (B, T_m, ...) in the order of the modalities, some of which may be left out.

    Segment s of S has the tokens that overlap its time, ``floor(s T / S)`` to ``ceil((s + 1) T / S) - 1`` as in
    adaptive average pooling, so that T need not be a multiple of S, and may be smaller. ``None`` takes all tokens. The
    weights are float32, or float64 for such tokens.
    """
    given = {name: tokens[name] for name in modalities if name in tokens}
    some = next(iter(given.values()))
    like = at_least_float32(some.new_empty(0))
    of_modality = torch.eye(len(modalities), dtype=like.dtype, device=like.device).unsqueeze(-1)  # (M, M, 1)
    columns = []
    for index, name in enumerate(modalities):
        if name in given:
            columns.append(_overlaps(given[name].shape[1], segments, of_modality[index]))
    member = torch.cat(columns, dim=-1).flatten(0, -2)  # (S M, T)
    real = joined_mask([(values, mask.get(name)) for name, values in given.items()])
    weights = member.expand(some.shape[0], -1, -1) if real is None else member * real.unsqueeze(1)
    count = weights.sum(dim=-1)
    present = count.clamp(max=1.0).float().unflatten(1, (-1, len(modalities))).flatten(0, 1)
    return Pooling(weights / count.clamp(min=1.0).unsqueeze(-1), present)


def _overlaps(length: int, segments: int | None, of_modality: Tensor) -> Tensor:
    """Returns which tokens overlap the time of which segment, in the row of their modality: (S, M, T) of 0 and 1.

    ``of_modality`` (M, 1) is 1 in that row. Without segments S is left out.
    """
    if segments is None:
        return of_modality.expand(-1, length)
    bounds = torch.arange(segments + 1, device=of_modality.device) * length
    first, end = bounds[:-1] // segments, -(-bounds[1:] // segments)
    position = torch.arange(length, device=of_modality.device)
    overlaps = (position >= first.unsqueeze(-1)) & (position < end.unsqueeze(-1))
    return overlaps.unsqueeze(1) * of_modality
