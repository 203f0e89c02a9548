"""ChannelDropout: dropout of whole channels of a sample's tokens."""

from torch import Tensor, nn


class ChannelDropout(nn.Dropout):
    """Zeroes, in training, every channel of every sample of (B, T, d) with probability p, and scales the others.

    Computes what `torch.nn.Dropout1d` does to (B, d, T), without transposing the tokens.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return tokens
        scale: Tensor = super().forward(tokens.new_ones(tokens.shape[0], 1, tokens.shape[-1]))
        return tokens * scale
