"""What is extracted from the clips of a benchmark, and how it is stored."""

from dataclasses import dataclass, field
from typing import Literal

from multifuse.media.spectrogram import SpectrogramOptions

_SMALLEST_FOR_DIS = 12
"""The smallest height and width of frames, in pixels, between which OpenCV computes optical flow by DIS."""


@dataclass(frozen=True)
class PreparationOptions:
    """What is extracted from a clip, and how it is stored."""

    sound: Literal["spectrogram", "waveform"] | None = "spectrogram"
    """The form in which sound is stored; ``None`` for benchmarks without sound."""
    spectrogram: SpectrogramOptions = field(default_factory=SpectrogramOptions)
    """The spectrogram's options; for a waveform only ``rate``, ``seconds`` and ``fill`` apply."""
    frames: int = 10
    """The maximum number of frames per clip, taken at the centres of equal parts; the exact number for clips whose
    segments are labelled."""
    frame_size: int = 224
    """The height and width to which frames are scaled, whatever their aspect ratio."""
    frame_seconds: float = 10.0
    """The length of the part of the clip, from its start, from which frames are taken."""
    flow: Literal["dis", "folder"] | None = None
    """The source of the optical flow: computed by DIS at the same times, or read from a folder of precomputed flow."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """The format of frames; flow is always PNG."""
    quality: int = 95
    """The quality of JPEG."""

    def __post_init__(self) -> None:
        for name in ("frames", "frame_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {getattr(self, name)}")
        if self.flow == "dis" and self.frame_size < _SMALLEST_FOR_DIS:
            raise ValueError(
                f"frame_size must be an integer >= {_SMALLEST_FOR_DIS} for optical flow by DIS, got {self.frame_size}"
            )
        if not 0 < self.frame_seconds < float("inf"):
            raise ValueError(f"frame_seconds must be finite and > 0, got {self.frame_seconds}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be in [1, 100], got {self.quality}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that these options give a row."""
        sound = () if self.sound is None else (self.sound,)
        return ("frames", *(("flow",) if self.flow else ()), *sound)
