"""ChannelDropout: dropout of whole channels of a sample's tokens."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Dropout = Callable[[Tensor], Tensor]
"""A dropout of tokens (B, T, ..., d)."""


class ChannelDropout(nn.Dropout):
    """Zeroes, in training, every channel of every sample of (B, T, d) with probability p, and scales the others.

    Computes what `torch.nn.Dropout1d` does to (B, d, T), without transposing the tokens.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        scale = self.scale(tokens, tokens.shape[0], 1, tokens.shape[-1])
        return tokens if scale is None else tokens * scale

    def drawn(self, tokens: Tensor, count: int) -> Sequence[Dropout]:
        """Draws the factors of several dropouts of tokens (B, T, ..., d) together."""
        scale = self.scale(tokens, count, tokens.shape[0], 1, *tokens.shape[2:])
        return [_unchanged] * count if scale is None else [factors.mul for factors in scale.unbind()]

    def scale(self, like: Tensor, *shape: int) -> Tensor | None:
        """Draws factors: 0 for what is dropped, 1 / (1 - p) for the others; ``None``: nothing is dropped."""
        if not self.training or self.p == 0:
            return None
        keep = 1 - self.p
        kept = torch.bernoulli(torch.empty(shape, dtype=like.dtype, device=like.device), keep)
        return kept / keep if keep else kept


def _unchanged(tokens: Tensor) -> Tensor:
    return tokens
