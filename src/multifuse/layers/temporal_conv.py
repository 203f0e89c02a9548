"""TemporalConvLevels: semantic levels of a feature sequence, as stages of a temporal convolutional network."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from multifuse._internal import checks, devices
from multifuse._internal.initialisation import DrawsOwnParameters
from multifuse._internal.untouched import is_untouched
from multifuse.layers.channel_dropout import ChannelDropout, Dropout

Map = Callable[[Tensor], Tensor]
"""A function of tokens (B, T, ...)."""
StageMap = Callable[[Tensor, int, "Masks | None", Dropout], Tensor]
"""What `Stage.forward` is: a function of tokens, their padded length, the masks, and the dropout of what is added."""


class TemporalConvLevels(DrawsOwnParameters):
    """Computes L sequences whose receptive field grows with the level.

    Stage l is a residual block of two convolutions of width 3 with dilations ``4^l`` and ``2 * 4^l`` (1, 2 / 4, 8 /
    16, 32). Padding is masked to zero before each convolution, so padding tokens change nothing, and the length is
    kept. T = 1 is legal. A stage is separable, as in Conv-TasNet (arXiv 1809.07454): its convolutions filter every
    channel along time, then a linear map mixes the channels.

    Args:
        input_dim: width of the input features.
        dim: width of every level, also ``output_dim``.
        num_levels: L.
        dropout: rate at which whole channels of a sample are dropped in training, at the input and after each stage (as
            in the TCN of Bai, Kolter and Koltun, arXiv 1803.01271).

    Shape:
        ``forward(inputs, mask=None)``: inputs (B, T, input_dim), mask (B, T) -> list of L tensors (B, T, dim).

    Raises:
        ValueError: inputs or a mask of another shape, inputs of another dtype than the weights.

    Source: CLCR (arXiv 2602.19605), semantic-hierarchy encoder; widths and dilations are ours.

    Example:
        >>> levels = TemporalConvLevels(20, 64, num_levels=3)(torch.randn(8, 50, 20))
        >>> [tuple(level.shape) for level in levels]
        [(8, 50, 64), (8, 50, 64), (8, 50, 64)]
    """

    def __init__(
        self,
        input_dim: int,
        dim: int,
        num_levels: int = 3,
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_dim = checks.positive_integer("input_dim", input_dim)
        self.output_dim = checks.positive_integer("dim", dim)
        self.num_levels = checks.positive_integer("num_levels", num_levels)
        self.dropout = ChannelDropout(checks.in_range("dropout", dropout, 0.0, 1.0))
        self.gradient_checkpointing = False  # set by transformers, as is the function
        self._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        self.projection = nn.Linear(input_dim, dim, device=device, dtype=dtype)
        self.stages = nn.ModuleList(Stage(dim, 4**level, device=device, dtype=dtype) for level in range(num_levels))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        mask = self.checked_mask(inputs, mask)
        hidden = self.projection(self.dropout(inputs))
        dropouts = self._dropouts(hidden)
        return self.levels_of(hidden, None if mask is None else mask.unsqueeze(-1), list(self.stages), dropouts)

    def checked_mask(self, inputs: Tensor, mask: Tensor | None) -> Tensor | None:
        """Checks what `forward` is given, and returns the mask as bool."""
        checks.tensor("inputs", inputs)
        if inputs.ndim != 3 or inputs.shape[-1] != self.input_dim:
            raise ValueError(f"inputs must have shape (batch, tokens, {self.input_dim}), got {tuple(inputs.shape)}")
        checks.same_dtype("inputs", inputs, self.projection.weight)
        return None if mask is None else checks.token_mask("mask", mask, *inputs.shape[:2])

    def levels_of(
        self, hidden: Tensor, mask: Tensor | None, stages: Sequence[StageMap], dropouts: Sequence[Dropout]
    ) -> list[Tensor]:
        """Applies stages to projected tokens (B, T, ...), given the mask of the first dimensions, (B, T, ..., 1)."""
        length = hidden.shape[1]
        padded = [padded_length(hidden.device, length, 4**level) for level in range(self.num_levels)]
        masks = _masks(hidden, mask, max(padded))
        levels = []
        for index, stage in enumerate(stages):
            masked = mask is not None or padded[index] > length
            arguments = (hidden, padded[index], masks if masked else None, dropouts[index])
            if self.gradient_checkpointing and self.training:
                hidden = self._gradient_checkpointing_func(stage, *arguments)
            else:
                hidden = stage(*arguments)
            levels.append(hidden)
        return levels

    def _dropouts(self, hidden: Tensor) -> Sequence[Dropout]:
        """Returns the dropout of each stage, whose factors are drawn together."""
        if not is_untouched(self.dropout, ChannelDropout):
            return [self.dropout] * self.num_levels
        return self.dropout.drawn(hidden, self.num_levels)

    def extra_repr(self) -> str:
        return f"{self.input_dim}, {self.output_dim}, num_levels={self.num_levels}, dropout={self.dropout.p}"


class Masks(NamedTuple):
    """Which tokens are real, and which are padding: (B or 1, T', ..., 1), T' the greatest padded length of a stage."""

    real: Tensor
    padding: Tensor


def _masks(hidden: Tensor, real: Tensor | None, padded: int) -> Masks | None:
    length = hidden.shape[1]
    if padded > length:
        real = hidden.new_ones(1, length, *[1] * (hidden.ndim - 2), dtype=torch.bool) if real is None else real
        real = functional.pad(real, (0, 0) * (hidden.ndim - 2) + (0, padded - length))
    return None if real is None else Masks(real, ~real)


class Stage(nn.Module):
    """A residual block: a LayerNorm, two convolutions along time, and a map of the channels."""

    def __init__(
        self,
        dim: int,
        dilation: int,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.convolutions = nn.ModuleList(
            Convolution(dim, dim, kernel_size=3, dilation=step, groups=dim, device=device, dtype=dtype)
            for step in (dilation, 2 * dilation)
        )
        self.mixer = nn.Linear(dim, dim, device=device, dtype=dtype)

    def forward(self, hidden: Tensor, padded: int, masks: Masks | None, dropout: Dropout) -> Tensor:
        first, second = self.convolutions
        return hidden + dropout(residual(hidden, padded, masks, self.norm, first, second, self.mixer))


def residual(
    hidden: Tensor, padded: int, masks: Masks | None, norm: Map, first: Map, second: Map, mixer: Map
) -> Tensor:
    """Computes what a stage adds to its tokens (B, T, ...), given its parts as functions of tokens."""
    length = hidden.shape[1]
    update = norm(hidden)
    if padded > length:
        tail = update[:, : padded - length].detach()  # any tokens do, because they are masked
        update = torch.cat([update, tail], dim=1)
    if masks is not None:
        update = update.masked_fill(masks.padding[:, :padded], 0.0)
    update = functional.gelu(first(update))
    if masks is not None:
        update = update * masks.real[:, :padded]  # finite, so that this is masked_fill, and faster on a CPU
    return mixer(functional.gelu(second(update)[:, :length]))


class Convolution(nn.Conv1d):
    """`filtered`, with weights of its own."""

    def forward(self, tokens: Tensor) -> Tensor:
        assert self.bias is not None
        return filtered(tokens, self.weight, self.bias, self.dilation[0])


def filtered(tokens: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """Filters every channel of tokens (B, T, C) along time, with zeros beyond both ends; the length is kept.

    T is a padded length of the stage: a multiple of the dilation, or less than it, where `padded_length` says so. The
    weight is (C, 1, 3), the bias (C,).
    """
    if torch.compiler.is_compiling() or tokens.shape[1] == 0:
        return _shifted(tokens, weight, bias, dilation)
    if devices.is_gpu(tokens.device):  # one kernel for all channels; with channels last, cuDNN launches one for each
        rows = functional.conv1d(
            tokens.mT.contiguous(), weight, bias, padding=dilation, dilation=dilation, groups=tokens.shape[-1]
        )
        return rows.mT
    return _filtered_image(tokens, weight, bias, dilation)


def _shifted(tokens: Tensor, weight: Tensor, bias: Tensor, step: int) -> Tensor:
    """Sums shifted products: a compiler fuses them into one kernel, for every length."""
    length = tokens.shape[1]
    padded = functional.pad(tokens, (0, 0, step, step))
    before, here, after = weight[:, 0].unbind(dim=-1)
    return padded[:, :length] * before + tokens * here + padded[:, 2 * step :] * after + bias


def _filtered_image(tokens: Tensor, weight: Tensor, bias: Tensor, step: int) -> Tensor:
    """Filters an image with channels last, whose rows are one dilation apart: torch's dilated convolutions are slow."""
    # An outer tap that is length tokens away, or more, meets no token: a shorter step is the same and costs less.
    step = min(tokens.shape[1], step)
    padding = 1
    if tokens.shape[1] < 3 * step:  # oneDNN is slow to differentiate a filter that is higher than its image
        zeros = tokens.new_zeros(tokens.shape[0], step, tokens.shape[-1])
        tokens, padding = torch.cat([zeros, tokens, zeros], dim=1), 0
    image = tokens.unflatten(1, (-1, step)).permute(0, 3, 1, 2)
    image = functional.conv2d(image, weight.unsqueeze(-1), bias, padding=(padding, 0), groups=tokens.shape[-1])
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def padded_length(device: torch.device, length: int, dilation: int) -> int:
    """Returns the least length from ``length`` up that both convolutions of a stage divide into whole rows.

    Only the images of `filtered` have rows.
    """
    if torch.compiler.is_compiling() or length <= dilation or devices.is_gpu(device):
        return length
    return -(-length // (2 * dilation)) * 2 * dilation
