"""Arithmetic under token masks. A mask is bool, True = real token; ``None`` means that all tokens are real."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def token_count(mask: Tensor | None, length: int) -> Tensor | int:
    """Counts the real tokens of every row: mask (..., T) -> (...,); without a mask, each has ``length``."""
    return length if mask is None else mask.sum(dim=-1)


def token_divisor(mask: Tensor | None, length: int) -> Tensor | int:
    """Returns what a sum over the tokens of every row is divided by for their mean, (..., 1): at least 1."""
    count = token_count(mask, length)
    return count.clamp(min=1).unsqueeze(-1) if isinstance(count, Tensor) else torch.sym_max(count, 1)


def without_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    """Zeroes tokens (..., T, d) at padding, where even NaN must not spread."""
    return values if mask is None else values.masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Averages the real tokens of every sample, in float32 or better: (B, T, d) -> (B, d); no token gives 0."""
    total = without_padding(values, mask).sum(dim=1, dtype=torch.promote_types(values.dtype, torch.float32))
    return (total / token_divisor(mask, values.shape[1])).to(values.dtype)


def masks_of_all(sequences: Sequence[tuple[Tensor, Tensor | None]]) -> list[Tensor] | None:
    """Returns a mask (B, T_m) of every sequence (B, T_m, ...), also of those without one; ``None`` if none has one."""
    if all(mask is None for _, mask in sequences):
        return None
    return [values.new_ones(values.shape[:2], dtype=torch.bool) if mask is None else mask for values, mask in sequences]


def joined_mask(sequences: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """Returns the mask (B, T_1 + T_2 + ...) of concatenated sequences (B, T_m, ...); ``None`` if all are real."""
    masks = masks_of_all(sequences)
    return None if masks is None else torch.cat(masks, dim=1)


def token_mask_of_frames(mask: Tensor, tokens: int) -> Tensor:
    """Expands a mask of frames to their tokens, the same number for every frame: (B, F) -> (B, T), T a multiple of F.

    Raises:
        ValueError: T is not a multiple of F.
    """
    frames = mask.shape[1]
    if frames == 0 or tokens % frames:
        raise ValueError(f"mask must have a number of frames that divides the {tokens} tokens, got {frames}")
    return mask.repeat_interleave(tokens // frames, dim=1)


def has_tokens(values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns which samples have a real token: (B, T, ...) -> (B,) bool."""
    if mask is None:
        return torch.full((values.shape[0],), values.shape[1] > 0, device=values.device)
    return mask.any(dim=1)


def as_sequences(
    given: Mapping[str, Tensor | None], vectors: frozenset[str], dimensions: int
) -> Mapping[str, Tensor | None]:
    """Returns vectors, (B, d), or their masks, (B,), as those of one token; what is wrong is left to the checks."""
    if not isinstance(given, Mapping):
        return given
    return {
        name: values.unsqueeze(1)
        if name in vectors and isinstance(values, Tensor) and values.ndim == dimensions
        else values
        for name, values in given.items()
    }
