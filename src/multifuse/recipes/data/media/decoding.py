"""Sound and frames of media files, decoded by PyAV in bounded memory, however damaged the file is."""

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
"""A frame that declares more is refused before it is decoded."""
_CONTAINERS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpeg", "mpegts", "mpegvideo", "m4v", "h264", "hevc"),
    *("wav", "w64", "flac", "mp3", "ogg", "aac"),
    *("image2", "png_pipe", "jpeg_pipe", "mjpeg", "webp_pipe", "bmp_pipe"),
)
"""What a file may be, whatever its name says: no playlist among them, which would have other files opened."""
_RATES = (1000, 1_000_000)
"""Samples a second that a sound may declare: of one a second, a packet would become gigabytes."""
LEAST_COVERED = 0.5
"""The share of its declared duration that a file must hold; with less it counts as truncated."""

Bytes = NDArray[np.uint8]


class MediaError(ValueError):
    """A file that cannot be decoded; the message is one line that says what is wrong, without the file's name."""


class NoSoundError(MediaError):
    """A file without an audio stream, or with an empty one."""


@dataclass(frozen=True)
class Frames:
    """Frames of a clip (height, width, 3), and of each the frame after it, where that was asked for."""

    images: list[Bytes] = field(default_factory=list)
    successors: list[Bytes] = field(default_factory=list)


def read_audio(path: Path, rate: int, seconds: float) -> NDArray[np.float32]:
    """The first ``seconds`` of a file's sound: one channel (the mean of all), (samples,), in [-1, 1].

    Samples that are not finite become 0; a damaged packet is left out.

    Raises:
        NoSoundError: no audio stream, or no sample in it.
        MediaError: no sound that can be decoded, or less than half of what the file declares.
    """
    wanted = round(rate * seconds)
    with _opened(path) as container:
        if not container.streams.audio:
            raise NoSoundError("has no sound")
        stream = container.streams.audio[0]
        _check_decoder(stream)
        if not _RATES[0] <= stream.rate <= _RATES[1]:
            raise MediaError(f"declares {stream.rate} samples a second, outside of {_RATES[0]} to {_RATES[1]}")
        stream.codec_context.thread_count = 1
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts: list[NDArray[np.float32]] = []
        count = damaged = 0
        for packet in container.demux(stream):
            try:
                frames = [part for frame in packet.decode() for part in resampler.resample(frame)]
            except (av.error.FFmpegError, ValueError):
                damaged += 1
                continue
            parts += [frame.to_ndarray()[0] for frame in frames]
            count += sum(frame.samples for frame in frames)
            if count >= wanted:
                break
        if 0 < count < wanted:
            parts += [frame.to_ndarray()[0] for frame in resampler.resample(None)]
        if count == 0:
            raise MediaError("no sound can be decoded") if damaged else NoSoundError("has no sound")
        declared = 0.0 if not stream.duration else float(stream.duration * (stream.time_base or 0))
        _check_covered(count / rate, min(declared, seconds))
    samples = np.concatenate(parts)[:wanted].astype(np.float32)
    return np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -1, 1)


def read_frames(path: Path, count: int, size: int, seconds: float, successors: bool = False) -> Frames:
    """At most ``count`` frames, those shown in the middle of as many equal parts of the first ``seconds``.

    The times are the file's own, so that a variable frame rate is no matter. A frame that serves several parts comes
    once: a still image gives one. Frames are scaled to ``size`` x ``size``. With ``successors``, the next frame of
    each comes too, and a frame without one is left out.

    Raises:
        MediaError: no frame that can be decoded, one that is too large, or less than half of the declared duration.
    """
    span = _span(path)
    length = min(span.end - span.first, seconds)
    chosen = _Chosen(size, successors, [span.first + (part + 0.5) * length / count for part in range(count)])
    last = span.first
    with _opened(path) as container:
        stream = _video(container)
        for frame, time in _decoded(container, stream):
            last = time
            if chosen.take(frame, time):
                break
        else:
            chosen.finish()
            if chosen.previous is None:
                raise MediaError("no frame can be decoded")
            _check_covered(last - span.first, min(span.last - span.first, seconds))
    return Frames(chosen.images, chosen.after)


class _Chosen:
    """Gathers the frames that are shown at the target times, as decoding passes by them."""

    def __init__(self, size: int, successors: bool, targets: list[float]) -> None:
        self.size, self.successors, self.targets = size, successors, targets
        self.images: list[Bytes] = []
        self.after: list[Bytes] = []
        self.previous: VideoFrame | None = None

    def take(self, frame: VideoFrame, time: float) -> bool:
        """Whether all targets are served once ``frame``, shown from ``time`` on, is known."""
        served = [target for target in self.targets if target < time]
        if served and self.previous is not None:
            self.images.append(_scaled(self.previous, self.size))
            if self.successors:
                self.after.append(_scaled(frame, self.size))
        self.targets = self.targets[len(served) :] if self.previous is not None else self.targets
        self.previous = frame
        return not self.targets

    def finish(self) -> None:
        """What targets are left see the last frame, which has no successor."""
        if self.targets and self.previous is not None and not self.successors:
            self.images.append(_scaled(self.previous, self.size))


class _Span(NamedTuple):
    """When a file's first and last frame are shown, and when the last ends, in seconds."""

    first: float
    last: float
    end: float


def _span(path: Path) -> _Span:
    """The times of a file's frames, by its packets, undecoded."""
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
    """The frames that can be decoded and their times; those of a damaged packet are left out."""
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
        raise MediaError("cannot be decoded: no decoder is known for what it declares")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"declares frames of {width} x {height}, more than {MAX_PIXELS} pixels")


def _check_covered(found: float, declared: float) -> None:
    if found < LEAST_COVERED * declared:
        raise MediaError(f"is truncated: holds {found:.2f} s of the {declared:.2f} s that it declares")


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Opens a file; whatever the decoder says of it ends in one line."""
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
