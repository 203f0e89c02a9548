"""One clip's media files as a row of the prepared set, by documented options."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multifuse.recipes.data.media.decoding import Bytes, MediaError, read_audio, read_frames
from multifuse.recipes.data.media.flow import dis_flow, flow_from_folder
from multifuse.recipes.data.media.media_index import ClipFiles
from multifuse.recipes.data.media.spectrogram import SpectrogramOptions, log_spectrogram
from multifuse.recipes.data.split_lists.clips import Clip


@dataclass(frozen=True)
class PreparationOptions:
    """What is computed of a clip, and how it is stored."""

    sound: Literal["spectrogram", "waveform"] | None = "spectrogram"
    """``None``: the benchmark is about pictures alone."""
    spectrogram: SpectrogramOptions = field(default_factory=SpectrogramOptions)
    """Of a waveform, its ``rate`` and ``seconds`` and ``fill``."""
    frames: int = 10
    """At most so many frames a clip, in the middle of equal parts."""
    frame_size: int = 224
    """Frames are scaled to this height and width, whatever their shape."""
    frame_seconds: float = 10.0
    """Frames are taken from the clip's beginning, up to here."""
    flow: Literal["dis", "folder"] | None = None
    """Optical flow at the same places: computed, or read from a folder computed before."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    quality: int = 95
    """Of JPEG. Flow is always PNG."""

    def __post_init__(self) -> None:
        for name in ("frames", "frame_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {getattr(self, name)}")
        if self.frames > 1024 or self.frame_size > 4096:
            raise ValueError(f"at most 1024 frames of 4096 pixels, got {self.frames} of {self.frame_size}")
        if not 0 < self.frame_seconds < float("inf"):
            raise ValueError(f"frame_seconds must be finite and > 0, got {self.frame_seconds}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must lie in [1, 100], got {self.quality}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row has of these options."""
        sound = () if self.sound is None else (self.sound,)
        return ("frames", *(("flow",) if self.flow else ()), *sound)


@dataclass(frozen=True)
class ClipTask:
    """A clip to decode; ``skipped`` says that it cannot be."""

    clip: Clip
    files: ClipFiles
    options: PreparationOptions
    flow_folder: Path | None = None


@dataclass(frozen=True)
class ClipRow:
    """What came of a clip: a row, or the reason why there is none."""

    clip: Clip
    row: dict[str, Any] | None
    reason: str = ""


def clip_row(task: ClipTask) -> ClipRow:
    """Decodes a clip; one that cannot be decoded, or has no sound, becomes a reason instead of a row."""
    clip, files = task.clip, task.files
    if files.pictures is None:
        return ClipRow(clip, None, "has no media file")
    row: dict[str, Any] = {"id": clip.id, "label": clip.label}
    if clip.segments is not None:
        row["segments"] = list(clip.segments)
    current = files.pictures
    try:
        row.update(_pictures(task, files.pictures))
        if task.options.sound is not None:
            current = files.sound or files.pictures
            row[task.options.sound] = _sound(current, task.options)
    except MediaError as error:
        return ClipRow(clip, None, f"{current.name} {error}")
    return ClipRow(clip, row)


def _pictures(task: ClipTask, path: Path) -> dict[str, Any]:
    options = task.options
    computed = options.flow == "dis"
    found = read_frames(path, options.frames, options.frame_size, options.frame_seconds, successors=computed)
    if computed and not found.images:  # a single frame: it is shown, and nothing moves
        found = read_frames(path, options.frames, options.frame_size, options.frame_seconds)
    row: dict[str, Any] = {"frames": [_encoded(i, options.image_format, options.quality) for i in found.images]}
    if computed:
        pairs = zip(found.images, found.successors)
        row["flow"] = [_encoded(dis_flow(image, after), "png") for image, after in pairs]
    elif options.flow == "folder":
        assert task.flow_folder is not None
        flows = flow_from_folder(task.flow_folder, task.clip.id, options.frames, options.frame_size)
        row["flow"] = [_encoded(flow, "png") for flow in flows]
    return row


def _sound(path: Path, options: PreparationOptions) -> Any:
    own = options.spectrogram
    samples = read_audio(path, own.rate, own.seconds)
    if options.sound == "spectrogram":
        return log_spectrogram(samples, own).T.astype(np.float16)
    return np.round(own.fitted(samples) * 32767).astype(np.int16)


def _encoded(image: Bytes, image_format: str, quality: int = 0) -> dict[str, Any]:
    """A picture as `datasets` stores it; one of two channels is gray with alpha, which PNG keeps exactly."""
    from PIL import Image

    picture = Image.fromarray(image) if image.shape[2] == 3 else _gray_with_alpha(image)
    buffer = io.BytesIO()
    options = {"quality": quality} if image_format == "jpeg" else {"compress_level": 6}
    picture.save(buffer, image_format.upper(), **options)
    return {"bytes": buffer.getvalue(), "path": None}


def _gray_with_alpha(image: Bytes) -> Any:
    from PIL import Image

    first, second = (Image.fromarray(np.ascontiguousarray(image[..., channel])) for channel in (0, 1))
    return Image.merge("LA", (first, second))
