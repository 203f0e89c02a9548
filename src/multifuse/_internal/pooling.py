"""Means over the real tokens of every modality, of a sample as a whole or of equal parts of its time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

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
    total, start = sum(values.shape[1] for values in given.values()), 0
    columns = []
    for name in modalities:
        length = given[name].shape[1] if name in given else 0
        columns.append(pad(_overlaps(length, segments, like), (start, total - start - length)))
        start = start + length
    member = torch.stack(columns, dim=1).flatten(0, 1)  # (S M, T)
    real = joined_mask([(values, mask.get(name)) for name, values in given.items()])
    weights = member.expand(some.shape[0], -1, -1) if real is None else member * real.unsqueeze(1)
    count = weights.sum(dim=-1)
    present = (count > 0).float().unflatten(1, (-1, len(modalities))).flatten(0, 1)
    return Pooling(weights / count.clamp(min=1.0).unsqueeze(-1), present)


def _overlaps(length: int, segments: int | None, like: Tensor) -> Tensor:
    """Returns which tokens overlap the time of which segment, (S, T) of 0 and 1."""
    if segments is None:
        return like.new_ones(1, length)
    bounds = torch.arange(segments + 1, device=like.device) * length
    first, end = bounds[:-1] // segments, -(-bounds[1:] // segments)
    position = torch.arange(length, device=like.device)
    return ((position >= first.unsqueeze(-1)) & (position < end.unsqueeze(-1))).to(like.dtype)
