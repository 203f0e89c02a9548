"""TemporalConvLevels: semantic levels of a feature sequence, as stages of a temporal convolutional network."""

from torch import Tensor, nn

from multifuse._internal import checks
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.ops.convolution import convolve_gelu


class TemporalConvLevels(nn.Module):
    """Computes L sequences whose receptive field grows with the level.

    Stage l is a residual block of two convolutions of width 3, with dilations ``4^l`` and ``2 * 4^l`` (1, 2 / 4, 8 /
    16, 32); padding is masked to zero before each, so padding tokens change nothing, and the length is kept. T = 1 is
    legal.
    A stage is separable, as in Conv-TasNet (arXiv 1809.07454): its convolutions take every channel along time, then a
    linear map mixes the channels.

    Args:
        input_dim: width of the input features.
        dim: width of every level, also ``output_dim``.
        num_levels: L.
        dropout: of whole channels of a sample, on the input and after each stage, in training (as in the TCN of
            Bai, Kolter and Koltun, arXiv 1803.01271).

    ``forward(inputs, mask)``: (B, T, input_dim), (B, T) bool or ``None`` -> list of L tensors (B, T, dim).

    Source: CLCR (arXiv 2602.19605), semantic-hierarchy encoder; widths and dilations are ours.
    """

    def __init__(self, input_dim: int, dim: int, num_levels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.input_dim = checks.positive_integer("input_dim", input_dim)
        self.output_dim = checks.positive_integer("dim", dim)
        self.num_levels = checks.positive_integer("num_levels", num_levels)
        self.dropout = ChannelDropout(dropout)
        self.projection = nn.Linear(input_dim, dim)
        self.stages = nn.ModuleList(_Stage(dim, 4**level, dropout) for level in range(num_levels))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        if inputs.ndim != 3 or inputs.shape[-1] != self.input_dim:
            raise ValueError(f"inputs must have shape (batch, tokens, {self.input_dim}), got {tuple(inputs.shape)}")
        if mask is not None:
            checks.token_mask("mask", mask, *inputs.shape[:2])
        hidden = self.projection(self.dropout(inputs))
        levels = []
        for stage in self.stages:
            hidden = stage(hidden, mask)
            levels.append(hidden)
        return levels


class _Stage(nn.Module):
    def __init__(self, dim: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel_size=3, padding=step, dilation=step, groups=dim)
            for step in (dilation, 2 * dilation)
        )
        self.mixer = nn.Linear(dim, dim)
        self.dropout = ChannelDropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        update: Tensor = self.norm(hidden)
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv1d)
            assert convolution.bias is not None
            update = convolve_gelu(update, convolution.weight[:, 0], convolution.bias, convolution.dilation[0], mask)
        brought: Tensor = self.dropout(self.mixer(update))
        return hidden + brought
