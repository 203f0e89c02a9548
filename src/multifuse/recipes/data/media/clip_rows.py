"""Decodes the media files of one clip into a row of the prepared set."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifuse.media.decoding import Frames, MediaError, read_audio, read_frames
from multifuse.media.flow import dis_flow, flow_from_folder
from multifuse.media.frame_selection import Bytes
from multifuse.processing import SoundInput
from multifuse.recipes.data.media.candidates import first_usable
from multifuse.recipes.data.media.media_index import ClipFiles
from multifuse.recipes.data.media.preparation_options import PreparationOptions
from multifuse.recipes.data.split_lists.clips import Clip


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
    sources: dict[str, Path] = field(default_factory=dict)
    """The files that the row was read from, by ``"pictures"`` and ``"sound"``."""
    notes: tuple[str, ...] = ()
    """What is unusual about these files: that they are not the preferred ones, are silent, or end early."""


@dataclass(frozen=True)
class _Part:
    """What a clip's pictures or sound add to its row."""

    columns: dict[str, Any]
    source: Path
    notes: tuple[str, ...]


_SILENT = 0.5 / 32768
"""A sound that never exceeds half a step of 16 bits is silent."""


def clip_row(task: ClipTask) -> ClipRow:
    """Decodes a clip; if that fails, or required sound is missing, the result has a reason instead of a row.

    Copies of its files that cannot be decoded, and silent ones, are passed over in favour of the next.
    """
    clip = task.clip
    if not task.files.pictures:
        return ClipRow(clip, None, lack_of_pictures(task.files))
    row: dict[str, Any] = {"id": clip.id, "label": clip.label}
    if clip.segments is not None:
        row["segments"] = list(clip.segments)
    try:
        parts = {"pictures": _picture_part(task)}
        if task.options.sound is not None:
            parts["sound"] = _sound_part(task)
    except MediaError as error:
        return ClipRow(clip, None, str(error))
    for part in parts.values():
        row.update(part.columns)
    sources = {kind: part.source for kind, part in parts.items()}
    return ClipRow(clip, row, "", sources, tuple(note for part in parts.values() for note in part.notes if note))


def _picture_part(task: ClipTask) -> _Part:
    choice = first_usable(task.files.pictures, lambda path: _frames(task, path))
    try:
        columns = _pictures(task, choice.value)
    except MediaError as error:
        raise MediaError(f"{choice.path.name} {error}") from None
    still = f"{choice.path.name} has a single frame and so no optical flow" if columns.get("flow") == [] else ""
    return _Part(columns, choice.path, (choice.note, still, _early_end(task, choice.path, choice.value.seconds)))


def _sound_part(task: ClipTask) -> _Part:
    files, spectrogram = task.files, task.options.spectrogram
    try:
        choice = first_usable(
            files.sounds,
            lambda path: read_audio(path, spectrogram.rate, spectrogram.seconds),
            lambda samples: "" if np.abs(samples).max() > _SILENT else "is silent",
        )
    except MediaError as error:
        lack = ", and there is no sound file of its name" if files.lacks_sound_file else ""
        raise MediaError(f"{error}{lack}") from None
    used = f"has no sound file; the sound of {choice.path.name} is used" if files.lacks_sound_file else ""
    end = _early_end(task, choice.path, len(choice.value) / spectrogram.rate)
    assert task.options.sound is not None
    return _Part({task.options.sound: _sound(choice.value, task.options)}, choice.path, (used, choice.note, end))


def lack_of_pictures(files: ClipFiles) -> str:
    """Returns the reason why a clip without pictures is skipped."""
    if not files.sounds:
        return "has no media file"
    return f"has sound {files.sounds[0].name} but no video file ({', '.join(files.picture_suffixes)})"


def _early_end(task: ClipTask, path: Path, seconds: float) -> str:
    """Says that a file ends before the last of the clip's segments begins."""
    segments, covered = task.clip.segments, task.options.frame_seconds
    if segments is None or seconds > covered * (1 - 1 / len(segments)):
        return ""
    return f"{path.name} ends at {seconds:.2f} s, before the last of its labels, which cover {covered:g} s"


def _frames(task: ClipTask, path: Path) -> Frames:
    options = task.options
    size = (options.frames, options.frame_size, options.frame_seconds)
    if task.clip.segments is not None:
        return read_frames(path, *size, successors=options.flow == "dis", absolute=True)
    if options.flow == "dis":
        frames = read_frames(path, *size, successors=True)
        if frames.images:
            return frames
    return read_frames(path, *size)  # a single frame has no successor: it is kept, without flow


def _pictures(task: ClipTask, frames: Frames) -> dict[str, Any]:
    options = task.options
    row: dict[str, Any] = {
        "frames": [_encoded(image, options.image_format, options.quality) for image in frames.images]
    }
    if options.flow == "dis":
        pairs = zip(frames.images, frames.successors)
        row["flow"] = [_encoded(dis_flow(image, successor), "png") for image, successor in pairs]
    elif options.flow == "folder":
        assert task.flow_folder is not None
        share = min(1.0, options.frame_seconds / frames.seconds)
        flows = flow_from_folder(task.flow_folder, task.clip.id, options.frames, options.frame_size, share)
        row["flow"] = [_encoded(flow, "png") for flow in flows]
    return row


def _sound(samples: NDArray[np.float32], options: PreparationOptions) -> Any:
    assert options.sound is not None
    return SoundInput(options.sound, options.spectrogram).stored(samples)


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
