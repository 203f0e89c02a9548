"""Random augmentation of spectrograms and frames, one sample at a time, drawn from torch's global generator."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _below(bound: float) -> int:
    """Draws an integer in [0, bound), or returns 0 if the bound is 0."""
    return int(torch.rand(()).item() * bound)


@dataclass(frozen=True)
class SpectrogramAugmentation:
    """Augments log spectrograms (1, frequency, time); shifts, stretches and mask widths are fractions of their axis.

    Masks are those of SpecAugment (arXiv 1904.08779), filled with the sample's mean. A value of 0 turns a change off.
    """

    time_shift: float = 0.0
    """The largest shift in time, in either direction; values wrap around."""
    frequency_shift: float = 0.0
    """The largest shift in frequency, in either direction, which imitates another voice."""
    frequency_warp: float = 0.0
    """The largest stretch or compression of the frequency axis, fixed at its lower end, which imitates another length
    of the vocal tract (vocal tract length perturbation, Jaitly and Hinton, 2013)."""
    stretch: float = 0.0
    """The largest stretch or compression of the time axis, fixed at its start."""
    masks: int = 0
    """The number of time masks, and of frequency masks."""
    mask_share: float = 0.15
    """The largest width of a mask."""
    gain: float = 0.0
    """The largest constant added to all values, positive or negative, in the logarithm's units."""
    noise: float = 0.0
    """The largest standard deviation of the added Gaussian noise."""

    def __call__(self, values: Tensor) -> Tensor:
        fill_value = values.mean()
        _, bins, times = values.shape
        if self.stretch:
            values = self._stretched(values)
        if self.time_shift:
            values = values.roll(round(_uniform(-1, 1) * self.time_shift * times), dims=2)
        if self.frequency_warp:
            values = _warped(values, _uniform(1 - self.frequency_warp, 1 + self.frequency_warp))
        if self.frequency_shift:
            values = _shifted(values, round(_uniform(-1, 1) * self.frequency_shift * bins))
        values = values + _uniform(-self.gain, self.gain)
        if self.noise:
            values = values + torch.randn_like(values) * _uniform(0, self.noise)
        for _ in range(self.masks):
            values = self._masked(self._masked(values, 1, fill_value), 2, fill_value)
        return values

    def _stretched(self, values: Tensor) -> Tensor:
        times = values.shape[2]
        length = max(1, round(times * _uniform(1 - self.stretch, 1 + self.stretch)))
        resized = torch.nn.functional.interpolate(values, size=length, mode="linear", align_corners=False)
        if length >= times:
            return resized[:, :, :times]
        return torch.cat([resized, values[:, :, length - times :]], dim=2)

    def _masked(self, values: Tensor, axis: int, fill_value: Tensor) -> Tensor:
        size = values.shape[axis]
        width = _below(self.mask_share * size + 1)
        start = _below(size - width + 1)
        values = values.clone()
        values.narrow(axis, start, width).copy_(fill_value)
        return values


def _warped(values: Tensor, factor: float) -> Tensor:
    """Fills frequency f with the value at ``factor * f``, linearly interpolated; the last bin is repeated."""
    bins = values.shape[1]
    source = ((torch.arange(bins) + 0.5) * factor - 0.5).clamp(0, bins - 1)
    below = source.long()
    above = (below + 1).clamp(max=bins - 1)
    return values[:, below].lerp(values[:, above], (source - below)[:, None])


def _shifted(values: Tensor, bins: int) -> Tensor:
    """Shifts values along the frequency axis; the bin at the edge is repeated."""
    index = torch.arange(values.shape[1]) - bins
    return values[:, index.clamp(0, values.shape[1] - 1)]


@dataclass(frozen=True)
class ImageAugmentation:
    """Augments the frames (F, C, H, W) of a clip, all in the same way, in bytes; an amount of 0 turns a change off."""

    scale: float = 0.0
    """The largest fraction of the area that a crop, enlarged to the full size, removes."""
    shift: float = 0.0
    """The largest shift along each axis, as a fraction of the side."""
    rotation: float = 0.0
    """The largest rotation in degrees, in either direction."""
    stretch: float = 0.0
    """The largest relative change of the width, and the largest shear."""
    flip: bool = False
    """Whether half of the clips are mirrored left to right; optical flow also changes the sign of its x channel."""
    contrast: float = 0.0
    """The largest relative change of the contrast; the brightness changes by up to half of it."""
    noise: float = 0.0
    """The largest standard deviation of the added Gaussian noise, as a fraction of the value range."""
    erase: float = 0.0
    """The largest side of an erased square, as a fraction of the shorter side."""

    def __call__(self, frames: Tensor) -> Tensor:
        values = frames.float() / 255
        matrix = self._matrix()
        if self.flip and torch.rand(()).item() < 0.5:
            matrix[:, 0] = -matrix[:, 0]
            if values.shape[1] == 2:
                values = torch.stack([1 - values[:, 0], values[:, 1]], dim=1)
        size = list(values.shape)
        grid = torch.nn.functional.affine_grid(matrix.expand(size[0], 2, 3), size, align_corners=False)
        values = torch.nn.functional.grid_sample(values, grid, padding_mode="border", align_corners=False)
        if self.contrast:
            mean = values.mean()
            values = (values - mean) * _uniform(1 - self.contrast, 1 + self.contrast) + mean
            values = values + _uniform(-self.contrast, self.contrast) * 0.5
        if self.noise:
            values = values + torch.randn_like(values) * _uniform(0, self.noise)
        if self.erase:
            side = _below(self.erase * min(size[2:]) + 1)
            top, left = _below(size[2] - side + 1), _below(size[3] - side + 1)
            values[:, :, top : top + side, left : left + side] = values.mean()
        return (values.clamp(0, 1) * 255).round().byte()

    def _matrix(self) -> Tensor:
        """Draws the affine map from the result's coordinates to the frame's, both in [-1, 1]."""
        zoom = math.sqrt(_uniform(1 - self.scale, 1.0))
        margin = 1 - zoom
        angle = math.radians(_uniform(-1, 1) * self.rotation)
        widening = 1 + _uniform(-1, 1) * self.stretch
        shear = _uniform(-1, 1) * self.stretch
        shift_x, shift_y = (_uniform(-1, 1) * (margin + 2 * self.shift) for _ in range(2))
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        return torch.tensor([[cos * widening, -sin + shear * zoom, shift_x], [sin, cos, shift_y]])
