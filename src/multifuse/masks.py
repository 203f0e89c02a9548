"""Arithmetic under token masks. A mask is bool, True = real token; ``None`` stands for a mask of Trues."""

import torch
from torch import Tensor


def token_count(values: Tensor, mask: Tensor | None) -> Tensor:
    """Counts the real tokens of every sample: values (B, T, ...) -> (B,), in float32 or better."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    if mask is None:
        return torch.full((values.shape[0],), float(values.shape[1]), dtype=dtype, device=values.device)
    return mask.sum(dim=1).to(dtype)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Averages the real tokens of every sample, in float32 or better: (B, T, d) -> (B, d); none give 0."""
    if mask is not None:
        values = values.masked_fill(~mask.unsqueeze(-1), 0.0)
    count = token_count(values, mask).clamp(min=1.0)
    return (values.sum(dim=1, dtype=count.dtype) / count.unsqueeze(-1)).to(values.dtype)


def has_tokens(values: Tensor, mask: Tensor | None) -> Tensor:
    """Tells which samples have a real token: (B, T, ...) -> (B,) bool."""
    if mask is None:
        return torch.full((values.shape[0],), values.shape[1] > 0, device=values.device)
    return mask.any(dim=1)
