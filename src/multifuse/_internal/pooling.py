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
    """(B S, M): 1 where a sample, or a segment of it, has a real token of the modality."""

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

    The time of a sample ends with its last real token, the n-th. Segment s of S has the tokens that overlap its part of
    it, ``floor(s n / S)`` to ``ceil((s + 1) n / S) - 1`` as in adaptive average pooling, so that n need not be a
    multiple of S, and may be smaller. ``None`` takes all tokens. The weights are float32, or float64 for such tokens.
    """
    given = {name: tokens[name] for name in modalities if name in tokens}
    some = next(iter(given.values()))
    like = at_least_float32(some.new_empty(0))
    of_modality = torch.eye(len(modalities), dtype=like.dtype, device=like.device).unsqueeze(-1)  # (M, M, 1)
    columns = []
    for index, name in enumerate(modalities):
        if name in given:
            columns.append(_members(given[name], mask.get(name), segments, of_modality[index]))
    member = torch.cat(columns, dim=-1)  # (B or 1, S M, T)
    real = joined_mask([(values, mask.get(name)) for name, values in given.items()])
    weights = member.expand(some.shape[0], -1, -1) if real is None else member * real.unsqueeze(1)
    count = weights.sum(dim=-1)
    present = count.clamp(max=1.0).unflatten(1, (-1, len(modalities))).flatten(0, 1)
    return Pooling(weights / count.clamp(min=1.0).unsqueeze(-1), present)


def _members(tokens: Tensor, mask: Tensor | None, segments: int | None, of_modality: Tensor) -> Tensor:
    """Returns which tokens (B, T, ...) are in which segment, in the row of their modality: (B or 1, S M, T) of 0 and 1.

    ``of_modality`` (M, 1) is 1 in that row. Without segments S is 1.
    """
    if segments is None:
        return of_modality.expand(1, -1, tokens.shape[1])
    overlaps = _overlaps(tokens.shape[1], mask, segments, tokens.device)
    return (overlaps.unsqueeze(2) * of_modality).flatten(1, 2).expand(tokens.shape[0], -1, -1)


def _overlaps(length: int, mask: Tensor | None, segments: int, device: torch.device) -> Tensor:
    """Returns which tokens overlap the time of which segment: (B or 1, S, T)."""
    position = torch.arange(length, device=device)
    # One after the last real token, 0 without one.
    end = position.new_full((1,), length) if mask is None else pad((position + 1) * mask, (1, 0)).amax(dim=-1)
    bounds = torch.arange(segments + 1, device=device) * end.unsqueeze(-1)
    first, last = bounds[:, :-1] // segments, -(-bounds[:, 1:] // segments)
    return (position >= first.unsqueeze(-1)) & (position < last.unsqueeze(-1))
