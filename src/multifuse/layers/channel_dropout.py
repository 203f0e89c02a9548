"""ChannelDropout: dropout of whole channels of a sample's tokens."""

import torch
from torch import Tensor, nn


class ChannelDropout(nn.Dropout):
    """Zeroes, in training, every channel of every sample of (B, T, d) with probability p, and scales the others.

    Computes what `torch.nn.Dropout1d` does to (B, d, T), without transposing the tokens.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        (scale,) = self.scales(tokens, 1)
        return tokens if scale is None else tokens * scale

    def scales(self, tokens: Tensor, count: int) -> list[Tensor | None]:
        """Draws the factors (B, 1, d) of ``count`` dropouts of such tokens at once; ``None``: nothing is dropped."""
        if not self.training or self.p == 0:
            return [None] * count
        keep = 1 - self.p
        kept = torch.bernoulli(tokens.new_empty(count, tokens.shape[0], 1, tokens.shape[-1]), keep)
        return list((kept / keep if keep else kept).unbind())
