"""Decodes the media files of one clip into a row of the prepared set."""

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
    """What is extracted from a clip, and how it is stored."""

    sound: Literal["spectrogram", "waveform"] | None = "spectrogram"
    """The form in which sound is stored; ``None`` for benchmarks without sound."""
    spectrogram: SpectrogramOptions = field(default_factory=SpectrogramOptions)
    """The spectrogram's options; for a waveform only ``rate``, ``seconds`` and ``fill`` apply."""
    frames: int = 10
    """The maximum number of frames per clip, taken at the centres of equal parts."""
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
        if not 0 < self.frame_seconds < float("inf"):
            raise ValueError(f"frame_seconds must be finite and > 0, got {self.frame_seconds}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be in [1, 100], got {self.quality}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that these options give a row."""
        sound = () if self.sound is None else (self.sound,)
        return ("frames", *(("flow",) if self.flow else ()), *sound)


@dataclass(frozen=True)
class ClipTask:
    """A clip to decode, with its media files and the options."""

    clip: Clip
    files: ClipFiles
    options: PreparationOptions
    flow_folder: Path | None = None


@dataclass(frozen=True)
class ClipRow:
    """The result for one clip: its row, or the reason why there is none."""

    clip: Clip
    row: dict[str, Any] | None
    reason: str = ""


def clip_row(task: ClipTask) -> ClipRow:
    """Decodes a clip; if that fails, or required sound is missing, the result has a reason instead of a row."""
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
    frames = read_frames(path, options.frames, options.frame_size, options.frame_seconds, successors=computed)
    if computed and not frames.images:  # a single frame has no successor: it is kept, without flow
        frames = read_frames(path, options.frames, options.frame_size, options.frame_seconds)
    row: dict[str, Any] = {
        "frames": [_encoded(image, options.image_format, options.quality) for image in frames.images]
    }
    if computed:
        pairs = zip(frames.images, frames.successors)
        row["flow"] = [_encoded(dis_flow(image, successor), "png") for image, successor in pairs]
    elif options.flow == "folder":
        assert task.flow_folder is not None
        flows = flow_from_folder(task.flow_folder, task.clip.id, options.frames, options.frame_size)
        row["flow"] = [_encoded(flow, "png") for flow in flows]
    return row


def _sound(path: Path, options: PreparationOptions) -> Any:
    spectrogram = options.spectrogram
    samples = read_audio(path, spectrogram.rate, spectrogram.seconds)
    if options.sound == "spectrogram":
        return log_spectrogram(samples, spectrogram).T.astype(np.float16)
    return np.round(spectrogram.fitted(samples) * 32767).astype(np.int16)


def _encoded(image: Bytes, image_format: str, quality: int = 0) -> dict[str, Any]:
    """Encodes an image as `datasets` stores it; two channels become grey and alpha, which PNG preserves exactly."""
    from PIL import Image

    picture = Image.fromarray(image) if image.shape[2] == 3 else _grey_with_alpha(image)
    buffer = io.BytesIO()
    options = {"quality": quality} if image_format == "jpeg" else {"compress_level": 6}
    picture.save(buffer, image_format.upper(), **options)
    return {"bytes": buffer.getvalue(), "path": None}


def _grey_with_alpha(image: Bytes) -> Any:
    from PIL import Image

    grey, alpha = (Image.fromarray(np.ascontiguousarray(image[..., channel])) for channel in (0, 1))
    return Image.merge("LA", (grey, alpha))
