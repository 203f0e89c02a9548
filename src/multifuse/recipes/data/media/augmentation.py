"""What training changes at random in spectrograms and frames, one sample at a time, drawn from torch's generator."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _below(bound: float) -> int:
    """An integer in [0, bound), 0 where the bound is."""
    return int(torch.rand(()).item() * bound)


@dataclass(frozen=True)
class SpectrogramAugmentation:
    """Of log spectrograms (1, frequency, time). Shares are of the axis that they move or hide; 0 turns a part off.

    Masks as in SpecAugment (arXiv 1904.08779), with the sample's mean as the filling.
    """

    time_shift: float = 0.0
    """Rolled by up to this share of the time, either way."""
    frequency_shift: float = 0.0
    """Moved by up to this share of the bins, either way, as a change of voice does."""
    frequency_warp: float = 0.0
    """The axis of frequency stretched by up to this share, either way, from its lower end, as another length of the
    vocal tract does (vocal tract length perturbation, Jaitly and Hinton, 2013)."""
    stretch: float = 0.0
    """Time stretched by up to this share, either way, about the beginning."""
    masks: int = 0
    """So many stripes of time, and as many of frequency, are hidden."""
    mask_share: float = 0.15
    """The width of a stripe at most."""
    gain: float = 0.0
    """Added to all values, in the logarithm's units, up to this much either way."""
    noise: float = 0.0
    """The deviation of Gaussian noise is drawn up to this much."""

    def __call__(self, values: Tensor) -> Tensor:
        filling = values.mean()
        _, bins, times = values.shape
        if self.stretch:
            values = self._stretched(values, filling)
        if self.time_shift:
            values = values.roll(round(_uniform(-1, 1) * self.time_shift * times), dims=2)
        if self.frequency_warp:
            values = _warped(values, _uniform(1 - self.frequency_warp, 1 + self.frequency_warp))
        if self.frequency_shift:
            step = round(_uniform(-1, 1) * self.frequency_shift * bins)
            values = _moved(values, step)
        values = values + _uniform(-self.gain, self.gain)
        if self.noise:
            values = values + torch.randn_like(values) * _uniform(0, self.noise)
        for _ in range(self.masks):
            values = self._masked(self._masked(values, 1, filling), 2, filling)
        return values

    def _stretched(self, values: Tensor, filling: Tensor) -> Tensor:
        times = values.shape[2]
        length = max(1, round(times * _uniform(1 - self.stretch, 1 + self.stretch)))
        resized = torch.nn.functional.interpolate(values, size=length, mode="linear", align_corners=False)
        if length >= times:
            return resized[:, :, :times]
        return torch.cat([resized, values[:, :, length - times :]], dim=2)

    def _masked(self, values: Tensor, axis: int, filling: Tensor) -> Tensor:
        size = values.shape[axis]
        width = _below(self.mask_share * size + 1)
        start = _below(size - width + 1)
        values = values.clone()
        values.narrow(axis, start, width).copy_(filling.expand(()))
        return values


def _warped(values: Tensor, factor: float) -> Tensor:
    """What lies at frequency f comes from ``factor * f``, by linear interpolation; the last bin is repeated."""
    bins = values.shape[1]
    source = ((torch.arange(bins) + 0.5) * factor - 0.5).clamp(0, bins - 1)
    below = source.long()
    above = (below + 1).clamp(max=bins - 1)
    return values[:, below].lerp(values[:, above], (source - below)[:, None])


def _moved(values: Tensor, step: int) -> Tensor:
    """Moved along the frequency; what comes in at an end repeats the last bin."""
    index = torch.arange(values.shape[1]) - step
    return values[:, index.clamp(0, values.shape[1] - 1)]


@dataclass(frozen=True)
class ImageAugmentation:
    """Of frames (F, C, H, W) in bytes, all of a clip alike. Shares are of the frame's side; 0 turns a part off."""

    scale: float = 0.0
    """Cut out and enlarged: the area kept is drawn from [1 - scale, 1]."""
    shift: float = 0.0
    rotation: float = 0.0
    """Degrees, either way."""
    stretch: float = 0.0
    """The ratio of the sides changes by up to this share, and as much is sheared."""
    flip: bool = False
    """Mirrored left to right in half of the clips; of optical flow the horizontal channel changes its sign too."""
    contrast: float = 0.0
    """Contrast and brightness change by up to this share."""
    noise: float = 0.0
    """The deviation of Gaussian noise is drawn up to this much, of the full range."""
    erase: float = 0.0
    """A square of up to this share of the side is hidden."""

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
        """From the result's coordinates to the frame's, both from -1 to 1."""
        zoom = math.sqrt(_uniform(1 - self.scale, 1.0))
        free = 1 - zoom
        angle = math.radians(_uniform(-1, 1) * self.rotation)
        wide = 1 + _uniform(-1, 1) * self.stretch
        shear = _uniform(-1, 1) * self.stretch
        across, down = (_uniform(-1, 1) * (free + 2 * self.shift) for _ in range(2))
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        return torch.tensor([[cos * wide, -sin + shear * zoom, across], [sin, cos, down]])
