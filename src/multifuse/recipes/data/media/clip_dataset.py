"""Prepared clips as a torch data set, and their batches as the models read them."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from multifuse.recipes.data.media.augmentation import ImageAugmentation, SpectrogramAugmentation

if TYPE_CHECKING:
    from datasets import Dataset as ArrowDataset

MODALITIES = ("audio", "vision", "flow")
_COLUMNS = {"vision": "frames", "flow": "flow"}


@dataclass(frozen=True)
class Augmentation:
    """What training changes at random; ``None`` leaves a modality alone."""

    audio: SpectrogramAugmentation | None = None
    vision: ImageAugmentation | None = None
    """Of frames, and of optical flow by itself."""
    pair_anew: bool = False
    """Each sound meets the pictures of a clip of its class, drawn anew every time: for sets that were paired so."""


@dataclass(frozen=True)
class ClipSample:
    """One clip: frames and flow (F, C, H, W) in bytes, a spectrogram (1, frequency, time) or a waveform (samples,)."""

    inputs: dict[str, Tensor]
    label: int | list[int]


class ClipDataset(Dataset[ClipSample]):
    """The clips of a prepared split.

    Args:
        rows: the split, from `multifuse.recipes.data.media.shards.read_split`.
        modalities: of audio, vision and flow, those that are read.
        target: the clip's label, or those of its ``segments``.
        augmentation: of training; drawn from torch's global generator.
    """

    def __init__(
        self,
        rows: "ArrowDataset",
        modalities: Sequence[str],
        target: Literal["label", "segments"] = "label",
        augmentation: Augmentation | None = None,
    ) -> None:
        self.sound = "waveform" if "waveform" in rows.column_names else "spectrogram"
        if augmentation is not None and augmentation.pair_anew and target != "label":
            raise ValueError("clips are paired anew by their label, not by their segments'")
        columns = [self.sound if name == "audio" else _COLUMNS[name] for name in modalities]
        lacking = [name for name in [*columns, target] if name not in rows.column_names]
        if lacking:
            raise ValueError(f"the prepared set has no {lacking}, only {rows.column_names}")
        self.modalities, self.target = tuple(modalities), target
        self.labels: list[Any] = list(rows.with_format(None)[target])
        # One view a modality, so that a partner's other columns are not read; pictures' bytes need no array.
        self._views = {
            name: rows.select_columns([column]).with_format("numpy" if name == "audio" else None)
            for name, column in zip(modalities, columns, strict=True)
        }
        self.augmentation = augmentation or Augmentation()
        self._of_class: dict[int, list[int]] = {}
        if self.augmentation.pair_anew:
            for index, label in enumerate(self.labels):
                self._of_class.setdefault(label, []).append(index)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> ClipSample:
        label = self.labels[index]
        pictures = index
        if self.augmentation.pair_anew and "audio" in self.modalities and len(self.modalities) > 1:
            pictures = self._partner(label)
        inputs = {name: self._input(name, index if name == "audio" else pictures) for name in self.modalities}
        return ClipSample(inputs, label)

    def _partner(self, label: int) -> int:
        """A clip of a class, at random."""
        clips = self._of_class[label]
        return clips[int(torch.randint(len(clips), ()))]

    def _input(self, name: str, index: int) -> Tensor:
        row: Mapping[str, Any] = self._views[name][index]
        change: Callable[[Tensor], Tensor] | None
        if name == "audio":
            change = self.augmentation.audio
            if self.sound == "waveform":
                return torch.from_numpy(np.asarray(row["waveform"], np.float32) / 32768)
            values = torch.from_numpy(np.asarray(row["spectrogram"], np.float32)).T.unsqueeze(0)
        else:
            change = self.augmentation.vision
            values = _decoded(row[_COLUMNS[name]])
        return values if change is None or len(values) == 0 else change(values)


@dataclass(frozen=True)
class ClipCollator:
    """Pads the frames of clips to their batch's most: ``{"inputs", "mask", "labels"}`` for `CLCRForPrediction`."""

    def __call__(self, samples: Sequence[ClipSample]) -> dict[str, Any]:
        inputs: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name in samples[0].inputs:
            rows = [sample.inputs[name] for sample in samples]
            if name == "audio":
                inputs[name], masks[name] = torch.stack(rows), torch.ones(len(rows), 1, dtype=torch.bool)
            else:
                inputs[name], masks[name] = _padded(rows)
        return {"inputs": inputs, "mask": masks, "labels": torch.tensor([sample.label for sample in samples])}


def spectrogram_statistics(rows: "ArrowDataset", most: int = 500) -> tuple[float, float]:
    """The mean and the deviation of a split's spectrograms, over at most so many of them, evenly spread."""
    chosen = sorted({int((part + 0.5) * len(rows) / most) for part in range(most)})
    values = rows.select(chosen).select_columns(["spectrogram"]).with_format("numpy")
    sums = np.zeros(3)
    for row in values:
        own = np.asarray(row["spectrogram"], np.float64)
        sums += (own.size, own.sum(), np.square(own).sum())
    mean = sums[1] / sums[0]
    return float(mean), float(max(sums[2] / sums[0] - mean**2, 1e-12) ** 0.5)


def _decoded(pictures: Sequence[Mapping[str, bytes]]) -> Tensor:
    """(F, C, H, W), three channels of a colour picture, two of optical flow."""
    from PIL import Image

    frames = []
    for picture in pictures:
        with Image.open(io.BytesIO(picture["bytes"])) as opened:
            frames.append(np.asarray(opened if opened.mode == "LA" else opened.convert("RGB")))
    if not frames:
        return torch.zeros(0, 0, 0, 0, dtype=torch.uint8)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    counts = torch.tensor([len(row) for row in rows])
    longest = max(int(counts.max()), 1)
    shape = next((row.shape[1:] for row in rows if len(row)), torch.Size((2, 1, 1)))
    values = torch.zeros(len(rows), longest, *shape, dtype=torch.uint8)
    for index, row in enumerate(rows):
        if len(row):
            values[index, : len(row)] = row
    return values, torch.arange(longest) < counts[:, None]
