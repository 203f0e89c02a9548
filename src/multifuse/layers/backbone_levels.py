"""BackboneLevels: semantic levels of images, frames, spectrograms or waveforms, behind a Hugging Face backbone."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multifuse._internal import checks, masks
from multifuse.layers.temporal_conv import TemporalConvLevels


class BackboneLevels(nn.Module):
    """Turns a backbone's feature map into a token sequence, and that into L levels by `TemporalConvLevels`.

    Every position of the map is a token, time first: frame by frame and row by row in frames, column by column in a
    spectrogram. Of a backbone that gives tokens itself (ViT, AST, wav2vec 2.0) each is one.

    Args:
        model: a transformers vision or audio model that returns ``last_hidden_state``, a map (N, C, rows, columns) or
            tokens (N, K, C).
        dim: width of every level, also ``output_dim``.
        kind: ``"image"``, inputs (B, F, C, H, W), F frames a sample; or ``"audio"``, inputs (B, 1, frequency, time) or,
            for a backbone that reads waveforms, (B, samples). A backbone whose input is named otherwise than
            ``pixel_values`` reads a spectrogram as (B, time, frequency).
        num_levels: L. dropout: as in `TemporalConvLevels`.
        grid: (rows, columns) that a map is averaged to before it becomes tokens, ``None`` in either place: as it is.
        mean, std: subtracted from and divided into the inputs, by channel, or one for all; bytes come to [0, 1] first.

    ``forward(inputs, mask)``: mask (B, F) bool of the frames, (B, 1) of sounds (a sample has one or none), or ``None``
    -> list of L tensors (B, F K, dim), K tokens a frame. Padded frames never reach the backbone, so that they change
    nothing, not even batch statistics.

    Raises:
        ValueError: inputs or a mask of another shape, a backbone of unknown width.

    Source: CLCR (arXiv 2602.19605): ResNet-18, then a multi-stage TCN. The order of the tokens is ours.
    """

    spreads_mask = True  # a mask has an entry a frame, and the levels have several tokens a frame

    def __init__(
        self,
        model: nn.Module,
        dim: int,
        kind: Literal["image", "audio"] = "image",
        num_levels: int = 3,
        dropout: float = 0.0,
        grid: Sequence[int | None] = (None, None),
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        if kind not in ("image", "audio"):
            raise ValueError(f"kind must be 'image' or 'audio', got {kind!r}")
        self.model, self.kind, self.grid = model, kind, checks.grid("grid", grid)
        self.mean, self.std = tuple(mean), tuple(std)  # numbers, not buffers: they belong to the config
        self.output_dim, self.num_levels = dim, num_levels
        self.pretrained = False  # loading weights sets it: such a backbone may learn at a rate of its own
        self.levels = TemporalConvLevels(_width(model), dim, num_levels, dropout)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        frames = self._frames(inputs)
        batch, count = frames.shape[:2]
        if mask is None:
            tokens = self._tokens(frames.flatten(0, 1))
        else:
            real = checks.token_mask("mask", mask, batch, count).flatten()
            seen = frames.flatten(0, 1)[real]
            found = self._tokens(seen) if len(seen) else self._no_tokens(frames)
            tokens = found.new_zeros(batch * count, *found.shape[1:])
            tokens = tokens.index_put((real.nonzero()[:, 0],), found)
        sequence = tokens.unflatten(0, (batch, count)).flatten(1, 2)
        return list(self.levels(sequence, None if mask is None else masks.spread(mask, sequence.shape[1])))

    def _frames(self, inputs: Tensor) -> Tensor:
        """The inputs with a dimension of frames: of a sound, one."""
        expected = {"image": (5,), "audio": (4,) if self._reads_pixels else (2, 4)}[self.kind]
        if inputs.ndim not in expected:
            axes = {"image": "batch, frames, channels, height, width", "audio": "batch, 1, frequency, time"}[self.kind]
            raise ValueError(f"inputs must have shape ({axes}), got {tuple(inputs.shape)}")
        return inputs if self.kind == "image" else inputs.unsqueeze(1)

    @property
    def _reads_pixels(self) -> bool:
        return getattr(self.model, "main_input_name", "pixel_values") == "pixel_values"

    def _tokens(self, images: Tensor) -> Tensor:
        """The tokens (N, K, C) of N images or sounds."""
        values = self._normalised(images)
        if not self._reads_pixels and values.ndim == 4:
            values = values.squeeze(1).mT
        found: Tensor = self.model(values).last_hidden_state
        if found.ndim == 3:
            return found
        rows, columns = self.grid
        if self.grid != (None, None):
            size = (rows or found.shape[2], columns or found.shape[3])
            found = nn.functional.adaptive_avg_pool2d(found, size)
        if self.kind == "audio":
            found = found.mT
        return found.flatten(2).mT

    @torch.no_grad()
    def _no_tokens(self, frames: Tensor) -> Tensor:
        """The tokens (0, K, C) of no frames; how many a frame has is seen at one of zeros, outside training."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        found = self._tokens(torch.zeros_like(frames[0, :1]))
        for module in training:
            module.training = True
        return found[:0]

    def _normalised(self, images: Tensor) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        values = images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
        if self.mean == (0.0,) and self.std == (1.0,):
            return values
        shape = (-1, 1, 1) if values.ndim == 4 else (1,)
        return (values - values.new_tensor(self.mean).view(shape)) / values.new_tensor(self.std).view(shape)


def _width(model: nn.Module) -> int:
    """The width of what a backbone gives: the last of ``hidden_sizes`` in networks of stages, else ``hidden_size``."""
    config: Any = model.config
    sizes = getattr(config, "hidden_sizes", None)
    width = sizes[-1] if sizes else getattr(config, "hidden_size", None)
    if not isinstance(width, int):
        raise ValueError(f"model must tell its width as config.hidden_size or hidden_sizes, got {type(model).__name__}")
    return width
