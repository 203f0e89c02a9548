"""ChannelDropout: dropout of whole channels of a sample's tokens."""

from torch import Tensor, nn


class ChannelDropout(nn.Dropout):
    """Zeroes, in training, every channel of every sample of (B, T, d) with probability p, and scales the others.

    Computes what `torch.nn.Dropout1d` does to (B, d, T), without transposing the tokens.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return tokens
        return tokens * self.scale(tokens, tokens.shape[0], 1, tokens.shape[-1])

    def scale(self, like: Tensor, *shape: int) -> Tensor:
        """Draws factors of a shape: 0 for what is dropped, 1 / (1 - p) for the others in training."""
        scale: Tensor = super().forward(like.new_ones(shape))
        return scale
