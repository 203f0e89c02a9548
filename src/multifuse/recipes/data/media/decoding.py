"""Decodes the sound and frames of media files with PyAV, in bounded memory even when a file is damaged."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

MAX_PIXELS = 8192 * 8192
"""The largest frame that is decoded; a frame that declares more is refused beforehand."""
_CONTAINERS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpeg", "mpegts", "mpegvideo", "m4v", "h264", "hevc"),
    *("wav", "w64", "flac", "mp3", "ogg", "aac"),
    *("image2", "png_pipe", "jpeg_pipe", "mjpeg", "webp_pipe", "bmp_pipe"),
)
"""The accepted formats, whatever the file's name; playlists are excluded, since they make FFmpeg open other files."""
_RATES = (1000, 1_000_000)
"""The lowest and highest accepted sampling rate: resampling a packet declared at 1 Hz would produce gigabytes."""
LEAST_COVERED = 0.5
"""The fraction of its declared duration that a file must contain; a shorter file counts as truncated."""

Bytes = NDArray[np.uint8]


class MediaError(ValueError):
    """Raised when a file cannot be decoded; the message is one line that says why, without the file's name."""


class NoSoundError(MediaError):
    """Raised when a file has no audio stream, or an empty one."""


@dataclass(frozen=True)
class Frames:
    """Frames of a clip, (height, width, 3) each, and on request the frame that follows each of them."""

    images: list[Bytes] = field(default_factory=list)
    successors: list[Bytes] = field(default_factory=list)


def read_audio(path: Path, rate: int, seconds: float) -> NDArray[np.float32]:
    """Reads the first ``seconds`` of a file's sound as (samples,) in [-1, 1], mixed down to one channel by FFmpeg.

    Non-finite samples become 0; damaged packets are skipped.

    Raises:
        NoSoundError: if there is no audio stream, or it has no samples.
        MediaError: if no sound can be decoded, or less than half of the declared duration.
    """
    needed = round(rate * seconds)
    with _opened(path) as container:
        if not container.streams.audio:
            raise NoSoundError("has no sound")
        stream = container.streams.audio[0]
        _check_decoder(stream)
        if not _RATES[0] <= stream.rate <= _RATES[1]:
            raise MediaError(f"declares {stream.rate} samples per second, outside [{_RATES[0]}, {_RATES[1]}]")
        stream.codec_context.thread_count = 1
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts: list[NDArray[np.float32]] = []
        count = damaged = 0
        for packet in container.demux(stream):
            try:
                frames = [resampled for frame in packet.decode() for resampled in resampler.resample(frame)]
            except (av.error.FFmpegError, ValueError):
                damaged += 1
                continue
            parts += [frame.to_ndarray()[0] for frame in frames]
            count += sum(frame.samples for frame in frames)
            if count >= needed:
                break
        if 0 < count < needed:
            parts += [frame.to_ndarray()[0] for frame in resampler.resample(None)]
        if count == 0:
            raise MediaError("has no sound that can be decoded") if damaged else NoSoundError("has no sound")
        declared = 0.0 if not stream.duration else float(stream.duration * (stream.time_base or 0))
        _check_covered(count / rate, min(declared, seconds))
    samples = np.concatenate(parts)[:needed].astype(np.float32)
    return np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -1, 1)


def read_frames(path: Path, count: int, size: int, seconds: float, successors: bool = False) -> Frames:
    """Reads the frames shown at the centres of ``count`` equal parts of the first ``seconds``, ``count`` at most.

    Frames are chosen by their timestamps, so the frame rate may vary. A frame shown at several centres is returned
    once; a still image gives a single frame. Frames are scaled to ``size`` x ``size``. With ``successors``, the next
    frame of each is returned too, and a frame that has none is omitted.

    Raises:
        MediaError: if no frame can be decoded, a frame is too large, or the file contains less than half of its
            declared duration.
    """
    span = _span(path)
    length = min(span.end - span.first, seconds)
    selection = _Selection(size, successors, [span.first + (part + 0.5) * length / count for part in range(count)])
    last = span.first
    with _opened(path) as container:
        stream = _video(container)
        for frame, time in _decoded(container, stream):
            last = time
            if selection.add(frame, time):
                break
        else:
            selection.finish()
            if selection.previous is None:
                raise MediaError("has no frame that can be decoded")
            _check_covered(last - span.first, min(span.last - span.first, seconds))
    return Frames(selection.images, selection.successors)


class _Selection:
    """Collects the frames that are shown at the target times while a video is decoded."""

    def __init__(self, size: int, with_successors: bool, targets: list[float]) -> None:
        self.size, self.with_successors, self.targets = size, with_successors, targets
        self.images: list[Bytes] = []
        self.successors: list[Bytes] = []
        self.previous: VideoFrame | None = None

    def add(self, frame: VideoFrame, time: float) -> bool:
        """Adds the next frame, shown from ``time`` on; returns whether every target now has its frame."""
        passed = [target for target in self.targets if target < time]
        if passed and self.previous is not None:
            self.images.append(_scaled(self.previous, self.size))
            if self.with_successors:
                self.successors.append(_scaled(frame, self.size))
        self.targets = self.targets[len(passed) :] if self.previous is not None else self.targets
        self.previous = frame
        return not self.targets

    def finish(self) -> None:
        """Assigns the last frame, which has no successor, to the remaining targets."""
        if self.targets and self.previous is not None and not self.with_successors:
            self.images.append(_scaled(self.previous, self.size))


class _Span(NamedTuple):
    """The times at which a file's first and last frames are shown and the last one ends, in seconds."""

    first: float
    last: float
    end: float


def _span(path: Path) -> _Span:
    """Returns when a file's frames are shown, from its packets, without decoding them."""
    with _opened(path) as container:
        stream = _video(container)
        step = 1 / float(stream.average_rate) if stream.average_rate else 0.04
        base = float(stream.time_base or 0)
        first, last, end, number = math.inf, -math.inf, -math.inf, 0
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            time = packet.pts * base if packet.pts is not None else number * step
            number += 1
            first, last = min(first, time), max(last, time)
            end = max(end, time + (packet.duration * base if packet.duration else step))
        if number == 0:
            raise MediaError("has no frames")
        declared = 0.0 if not stream.duration else float(stream.duration) * base
        _check_covered(end - first, declared)
    return _Span(first, last, end)


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[tuple[VideoFrame, float]]:
    """Yields the frames that can be decoded, each with its time; damaged packets are skipped."""
    step = 1 / float(stream.average_rate) if stream.average_rate else 0.04
    number = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            continue
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            _check_size(frame.width, frame.height)
            yield frame, float(frame.time) if frame.time is not None else number * step
            number += 1


def _scaled(frame: VideoFrame, size: int) -> Bytes:
    scaled = frame.reformat(width=size, height=size, format="rgb24", interpolation="AREA")
    return np.asarray(scaled.to_ndarray(), np.uint8)


def _video(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise MediaError("has no video")
    stream = container.streams.video[0]
    _check_decoder(stream)
    _check_size(stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _check_decoder(stream: AudioStream | VideoStream) -> None:
    if getattr(stream, "codec_context", None) is None:
        raise MediaError("cannot be decoded: there is no decoder for the codec that it declares")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"declares frames of {width} x {height}, more than {MAX_PIXELS} pixels")


def _check_covered(seconds: float, declared: float) -> None:
    if seconds < LEAST_COVERED * declared:
        raise MediaError(f"is truncated: contains {seconds:.2f} s of the {declared:.2f} s that it declares")


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Opens a file, and turns any error of the decoder into a `MediaError` of one line."""
    try:
        options = {
            "protocol_whitelist": "file",
            "format_whitelist": ",".join(_CONTAINERS),
        }
        with av.open(str(path.absolute()), metadata_errors="ignore", options=options) as container:
            yield container
    except MediaError:
        raise
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise MediaError(f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}") from None
