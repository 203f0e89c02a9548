"""Log spectrograms in the conventions of the audio-visual benchmarks, all of which are options."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multifuse._internal.plain import make_fields_plain


@dataclass(frozen=True)
class SpectrogramOptions:
    """The options of a log spectrogram; the defaults are OGM-GE's for CREMA-D, and librosa's where OGM-GE sets none."""

    rate: int = 22050
    """The sampling rate in Hz."""
    seconds: float = 3.0
    """The length to which every sound is cut or filled."""
    fill: Literal["tile", "zeros"] = "tile"
    """How a shorter sound is lengthened: by repeating it from its start, or with silence."""
    n_fft: int = 512
    """The length of a window, in samples."""
    hop: int = 353
    """The distance between windows, in samples."""
    mels: int = 0
    """The number of (Slaney) mel bands; 0 keeps the bins of the Fourier transform."""
    offset: float = 1e-7
    """The constant in ``log(|S| + offset)``."""

    def __post_init__(self) -> None:
        make_fields_plain(self)
        for name in ("rate", "n_fft", "hop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {getattr(self, name)}")
        for name in ("seconds", "offset"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and > 0, got {getattr(self, name)}")
        if self.fill not in ("tile", "zeros"):
            raise ValueError(f"fill must be 'tile' or 'zeros', got {self.fill!r}")
        if self.mels < 0:
            raise ValueError(f"mels must be an integer >= 0, got {self.mels}")

    @property
    def samples(self) -> int:
        """The length of every sound, in samples."""
        return round(self.rate * self.seconds)

    def fitted(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns a sound (samples,), cut or filled to the common length."""
        if samples.ndim != 1 or samples.size == 0:
            raise ValueError(f"samples must have shape (samples,) with at least one sample, got {samples.shape}")
        if self.fill == "tile":
            return np.resize(samples, self.samples).astype(np.float32)
        kept = samples[: self.samples]
        return np.pad(kept, (0, self.samples - len(kept))).astype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of frequency bins and time steps of every spectrogram."""
        return self.mels or self.n_fft // 2 + 1, self.samples // self.hop + 1


def log_spectrogram(samples: NDArray[np.float32], options: SpectrogramOptions) -> NDArray[np.float32]:
    """Computes ``log(|S| + offset)``, (frequency, time), for the short-time Fourier transform S of a sound (samples,).

    Hann windows of ``n_fft`` samples are placed every ``hop`` samples, the first centred on the first sample; the sound
    is padded with silence. Mel bands sum magnitudes, not powers.

    Raises:
        ValueError: if there are no samples.
    """
    transform = torch.stft(
        torch.from_numpy(options.fitted(samples)),
        options.n_fft,
        options.hop,
        window=torch.hann_window(options.n_fft),
        pad_mode="constant",
        return_complex=True,
    )
    magnitudes = transform.abs()
    if options.mels:
        magnitudes = _mel_filters(options.n_fft // 2 + 1, options.mels, options.rate) @ magnitudes
    return np.asarray((magnitudes + options.offset).log().numpy(), np.float32)


@lru_cache(maxsize=4)
def _mel_filters(bins: int, mels: int, rate: int) -> Tensor:
    """Returns mel filters (mels, bins), each of area 1 over the frequency in Hz."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(bins, mels, 20.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T.astype(np.float32))
