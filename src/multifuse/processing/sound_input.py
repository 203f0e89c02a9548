"""SoundInput: how the sound of a file becomes the spectrogram or waveform that a model was trained on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multifuse._internal import checks
from multifuse.media.spectrogram import SpectrogramOptions, log_spectrogram


@dataclass(frozen=True)
class SoundInput:
    """Reads the start of a sound, as a log spectrogram or a waveform.

    Args:
        form: ``"spectrogram"`` or ``"waveform"``.
        options: of the spectrogram; for a waveform only ``rate``, ``seconds`` and ``fill`` apply.

    Shape:
        A path, also of a video, or finite samples (n,) at ``options.rate``, full scale at 1 -> (1, frequency, time),
        or (samples,) of a waveform.

    Raises:
        ValueError: a file without sound, or one that cannot be decoded; samples of another shape.

    Example:
        >>> from multifuse.media.spectrogram import SpectrogramOptions
        >>> SoundInput("spectrogram", SpectrogramOptions(rate=8000, seconds=1.0))(torch.zeros(8000)).shape
        torch.Size([1, 257, 23])
    """

    kind: ClassVar[str] = "sound"

    form: Literal["spectrogram", "waveform"] = "spectrogram"
    options: SpectrogramOptions = field(default_factory=SpectrogramOptions)

    def __post_init__(self) -> None:
        checks.choice("form", self.form, ("spectrogram", "waveform"))

    def stored(self, samples: NDArray[np.float32]) -> NDArray[Any]:
        """Returns a sound as prepared sets store it: (time, frequency) in float16, or (samples,) in int16."""
        if self.form == "spectrogram":
            return log_spectrogram(samples, self.options).T.astype(np.float16)
        return np.round(np.clip(self.options.fitted(samples), -1, 1) * 32767).astype(np.int16)

    @staticmethod
    def restored(stored: NDArray[Any]) -> Tensor:
        """Returns a stored sound as the models take it."""
        if stored.ndim == 1:
            return torch.from_numpy(np.asarray(stored, np.float32) / 32768)
        return torch.from_numpy(np.asarray(stored, np.float32)).T.unsqueeze(0)

    def __call__(self, value: Any) -> Tensor:
        return self.restored(self.stored(self._samples(value)))

    def _samples(self, value: Any) -> NDArray[np.float32]:
        if isinstance(value, str | Path):
            from multifuse.media.decoding import read_audio

            return read_audio(Path(value), self.options.rate, self.options.seconds)
        samples = np.asarray(value)
        if samples.dtype.kind != "f" or samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
            raise ValueError(
                f"must be a path, or finite samples (n,) at {self.options.rate} Hz with full scale at 1, "
                f"got {samples.dtype} {samples.shape}"
            )
        return samples.astype(np.float32)
