"""A torch data set of prepared clips."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from multifuse.processing import Sample, SoundInput
from multifuse.recipes.data.media.augmentation import ImageAugmentation, SpectrogramAugmentation

if TYPE_CHECKING:
    from datasets import Dataset as ArrowDataset

MODALITIES = ("audio", "vision", "flow")
_COLUMNS = {"vision": "frames", "flow": "flow"}


@dataclass(frozen=True)
class Augmentation:
    """The random changes made in training; ``None`` leaves a modality unchanged."""

    audio: SpectrogramAugmentation | None = None
    """The augmentation of spectrograms; waveforms are never augmented."""
    vision: ImageAugmentation | None = None
    """The augmentation of frames, and of optical flow, drawn separately for each."""
    pair_anew: bool = False
    """Whether each sound is paired with the pictures of a random clip of its class, drawn every time: for data sets
    whose sounds and pictures were themselves paired by class."""

    def in_place(self) -> "Augmentation":
        """Returns the augmentation without time shifts and stretches, which would move sound away from its labels."""
        return self if self.audio is None else replace(self, audio=replace(self.audio, time_shift=0.0, stretch=0.0))


class ClipDataset(Dataset[Sample]):
    """The clips of a prepared split.

    Args:
        rows: the split, from `multifuse.recipes.data.media.shards.read_split`.
        modalities: the modalities to read, among audio, vision and flow.
        target: the clip's label, or the labels of its ``segments``.
        augmentation: the random changes of training, drawn from torch's global generator. If the target is segments,
            sounds are neither shifted in time nor stretched.

    Raises:
        ValueError: if the split has no column for a modality or the target, or clips paired by class have a target
            other than the label.
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
            raise ValueError(f"target must be 'label' with pair_anew, which pairs clips by their label, got {target!r}")
        columns = [self.sound if name == "audio" else _COLUMNS[name] for name in modalities]
        missing = [name for name in [*columns, target] if name not in rows.column_names]
        if missing:
            raise ValueError(f"the prepared set has no columns {missing}, only {rows.column_names}")
        self.modalities, self.target = tuple(modalities), target
        self.labels: list[Any] = list(rows.with_format(None)[target])
        # One view per modality, so that only the columns needed are read; encoded pictures need no numpy format.
        self._views = {
            name: rows.select_columns([column]).with_format("numpy" if name == "audio" else None)
            for name, column in zip(modalities, columns, strict=True)
        }
        augmentation = augmentation or Augmentation()
        self.augmentation = augmentation if target == "label" else augmentation.in_place()
        self._class_indices: dict[int, list[int]] = {}
        if self.augmentation.pair_anew:
            for index, label in enumerate(self.labels):
                self._class_indices.setdefault(label, []).append(index)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        label = self.labels[index]
        picture_index = index
        if self.augmentation.pair_anew and "audio" in self.modalities and len(self.modalities) > 1:
            picture_index = self._partner(label)
        inputs = {name: self._input(name, index if name == "audio" else picture_index) for name in self.modalities}
        return Sample(inputs, label)

    def _partner(self, label: int) -> int:
        """Draws the index of a clip of this class."""
        indices = self._class_indices[label]
        return indices[int(torch.randint(len(indices), ()))]

    def _input(self, name: str, index: int) -> Tensor:
        row: Mapping[str, Any] = self._views[name][index]
        augment: Callable[[Tensor], Tensor] | None
        if name == "audio":
            augment = self.augmentation.audio
            values = SoundInput.restored(row[self.sound])
            if self.sound == "waveform":
                return values
        else:
            augment = self.augmentation.vision
            values = _decoded(row[_COLUMNS[name]])
        return values if augment is None or len(values) == 0 else augment(values)


def spectrogram_statistics(rows: "ArrowDataset", most: int = 500) -> tuple[float, float]:
    """Returns the mean and standard deviation of a split's spectrograms, over at most ``most`` evenly spaced clips."""
    chosen = sorted({int((part + 0.5) * len(rows) / most) for part in range(most)})
    values = rows.select(chosen).select_columns(["spectrogram"]).with_format("numpy")
    sums = np.zeros(3)
    for row in values:
        spectrogram = np.asarray(row["spectrogram"], np.float64)
        sums += (spectrogram.size, spectrogram.sum(), np.square(spectrogram).sum())
    mean = sums[1] / sums[0]
    return float(mean), float(max(sums[2] / sums[0] - mean**2, 1e-12) ** 0.5)


def _decoded(pictures: Sequence[Mapping[str, bytes]]) -> Tensor:
    """Decodes pictures to (F, C, H, W), with three channels for frames and two for optical flow."""
    from PIL import Image

    frames = []
    for picture in pictures:
        with Image.open(io.BytesIO(picture["bytes"])) as image:
            frames.append(np.asarray(image if image.mode == "LA" else image.convert("RGB")))
    if not frames:
        return torch.zeros(0, 2, 1, 1, dtype=torch.uint8)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
