"""BackboneLevels: semantic levels of images, frames, spectrograms or waveforms, behind a Hugging Face backbone."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multifuse._internal import checks, masks
from multifuse.layers.temporal_conv import TemporalConvLevels


class BackboneLevels(nn.Module):
    """Turns the feature map of a backbone into a token sequence, and that into L levels by `TemporalConvLevels`.

    Every position of the map is a token, in the order of time: frame by frame and row by row for frames, column by
    column for a spectrogram. A backbone that returns tokens (ViT, AST, wav2vec 2.0) has them used as they are.

    Args:
        model: a transformers vision or audio model that returns ``last_hidden_state``, a map (N, C, rows, columns) or
            tokens (N, K, C).
        dim: width of every level, also ``output_dim``.
        kind: ``"image"``, inputs (B, F, C, H, W), F frames per sample; or ``"audio"``, inputs (B, 1, frequency, time)
            or, for a backbone that reads waveforms, (B, samples). A backbone whose main input is not called
            ``pixel_values`` reads a spectrogram as (B, time, frequency).
        num_levels, dropout: L and the dropout rate, as in `TemporalConvLevels`.
        grid: (rows, columns) that a map is averaged to before it becomes tokens; ``None`` leaves a side unchanged.
        mean, std: subtracted from the inputs, which are then divided by ``std``; one number per channel, or one for
            all. Bytes are scaled to [0, 1] first.

    Shape:
        ``forward(inputs, mask=None)``: mask (B, F) of the frames, or (B, 1) of sounds -> list of L tensors
        (B, F K, dim), K tokens per frame. Padded frames never reach the backbone, so that they change nothing, not even
        batch statistics.

    Raises:
        ValueError: inputs or a mask of another shape, inputs that are neither bytes nor floating point, a backbone of
            unknown width.

    Source: CLCR (arXiv 2602.19605): ResNet-18, then a multi-stage TCN. The order of the tokens is ours.

    Example:
        >>> from transformers import ResNetConfig, ResNetModel
        >>> backbone = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
        >>> levels = BackboneLevels(backbone, 32, num_levels=2, grid=(1, 1))(torch.randn(4, 3, 3, 32, 32))
        >>> [tuple(level.shape) for level in levels]
        [(4, 3, 32), (4, 3, 32)]
    """

    masks_frames = True  # the mask has an entry per frame, and a frame has several tokens

    def __init__(
        self,
        model: nn.Module,
        dim: int,
        *,
        kind: Literal["image", "audio"] = "image",
        num_levels: int = 3,
        dropout: float = 0.0,
        grid: Sequence[int | None] = (None, None),
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.choice("kind", kind, ("image", "audio"))
        self.model, self.kind, self.grid = model, kind, checks.grid("grid", grid)
        # Numbers, not buffers: they belong to the config.
        self.mean, self.std = checks.numbers("mean", mean), checks.numbers("std", std)
        if min(self.std) <= 0:
            raise ValueError(f"std must be > 0, got {self.std}")
        self.output_dim, self.num_levels = dim, num_levels
        self.pretrained = False  # set when weights are loaded: such a backbone may learn at a rate of its own
        self.levels = TemporalConvLevels(_width(model), dim, num_levels, dropout=dropout, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.output_dim}, kind={self.kind!r}, num_levels={self.num_levels}, dropout={self.levels.dropout.p}, "
            f"grid={self.grid}, mean={self.mean}, std={self.std}"
        )

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        frames = self._frames(inputs)
        batch, count = frames.shape[:2]
        if mask is not None:
            mask = checks.token_mask("mask", mask, batch, count)
        if mask is None:
            tokens = self._tokens(frames.flatten(0, 1))
        elif torch.compiler.is_exporting() and not self.model.training:
            # The number of real frames would be a size that depends on values, which few targets know.
            padding = ~mask.flatten()
            tokens = self._tokens(frames.flatten(0, 1).masked_fill(padding.view(-1, *[1] * (frames.ndim - 2)), 0))
            tokens = tokens.masked_fill(padding.view(-1, 1, 1), 0.0)
        else:
            real = mask.flatten()
            real_frames = frames.flatten(0, 1)[real]
            real_tokens = self._tokens(real_frames) if len(real_frames) else self._no_tokens(frames)
            tokens = real_tokens.new_zeros(batch * count, *real_tokens.shape[1:])
            tokens = tokens.index_put((real.nonzero()[:, 0],), real_tokens)
        sequence = tokens.unflatten(0, (batch, count)).flatten(1, 2)
        token_mask = None if mask is None else masks.token_mask_of_frames(mask, sequence.shape[1])
        return list(self.levels(sequence, token_mask))

    def _frames(self, inputs: Tensor) -> Tensor:
        """Returns the inputs with a dimension of frames; a sound is one frame."""
        if checks.tensor("inputs", inputs).dtype != torch.uint8 and not inputs.is_floating_point():
            # Other integers would not be scaled.
            raise ValueError(f"inputs must be floating point or bytes (torch.uint8), got {inputs.dtype}")
        expected = {"image": (5,), "audio": (4,) if self._reads_pixels else (2, 4)}[self.kind]
        if inputs.ndim not in expected:
            axes = {"image": "batch, frames, channels, height, width", "audio": "batch, 1, frequency, time"}[self.kind]
            raise ValueError(f"inputs must have shape ({axes}), got {tuple(inputs.shape)}")
        return inputs if self.kind == "image" else inputs.unsqueeze(1)

    @property
    def _reads_pixels(self) -> bool:
        return getattr(self.model, "main_input_name", "pixel_values") == "pixel_values"

    def _tokens(self, images: Tensor) -> Tensor:
        """Returns the tokens (N, K, C) of N images or sounds."""
        values = self._normalised(images)
        if not self._reads_pixels and values.ndim == 4:
            values = values.squeeze(1).mT
        features: Tensor = self.model(values).last_hidden_state
        if features.ndim == 3:
            return features
        rows, columns = self.grid
        if self.grid != (None, None):
            size = (rows or features.shape[2], columns or features.shape[3])
            features = nn.functional.adaptive_avg_pool2d(features, size)
        if self.kind == "audio":
            features = features.mT
        return features.flatten(2).mT

    @torch.no_grad()
    def _no_tokens(self, frames: Tensor) -> Tensor:
        """Returns the tokens (0, K, C) of no frames; K is found from a frame of zeros, in eval mode."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            return self._tokens(torch.zeros_like(frames[0, :1]))[:0]
        finally:
            for module in training:
                module.training = True

    def _normalised(self, images: Tensor) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        values = images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
        if self.mean == (0.0,) and self.std == (1.0,):
            return values
        channels, given = values.shape[1] if values.ndim == 4 else 1, (len(self.mean), len(self.std))
        if not {*given} <= {1, channels}:
            raise ValueError(f"mean and std must have a number for all channels or for each of {channels}, got {given}")
        shape = (-1, 1, 1) if values.ndim == 4 else (1,)
        return (values - values.new_tensor(self.mean).view(shape)) / values.new_tensor(self.std).view(shape)


def _width(model: nn.Module) -> int:
    """Returns the output width of a backbone: the last of ``hidden_sizes`` if it has stages, else ``hidden_size``."""
    config: Any = getattr(model, "config", None)
    sizes = getattr(config, "hidden_sizes", None)
    width = sizes[-1] if sizes else getattr(config, "hidden_size", None)
    if not isinstance(width, int):
        raise ValueError(
            f"model must have its width as config.hidden_size or config.hidden_sizes, got a {type(model).__name__}"
        )
    return width
