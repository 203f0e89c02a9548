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
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from multifuse.media.file_kinds import wrong_kind
from multifuse.media.frame_selection import Bytes, FrameSelection
from multifuse.media.sound_track import SoundTrack

MAX_PIXELS = 8192 * 8192
"""The largest frame that is decoded; a frame that declares more is refused beforehand."""
_CONTAINERS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpeg", "mpegts", "mpegvideo", "m4v", "h264", "hevc"),
    *("wav", "w64", "flac", "mp3", "ogg", "aac"),
    *("image2", "png_pipe", "jpeg_pipe", "mjpeg", "webp_pipe", "bmp_pipe"),
)
"""The accepted formats, whatever the file's name; playlists are excluded, since they make FFmpeg open other files."""
_FROM_ZERO = ("matroska", "mov")
"""Formats in which what has a negative time stamp is not shown; elsewhere time stamps are relative to the first one."""
_RATES = (1000, 1_000_000)
"""The lowest and highest accepted sampling rate: resampling a packet declared at 1 Hz would produce gigabytes."""
LEAST_COVERED = 0.5
"""The fraction of its declared duration that a file must contain; a shorter file counts as truncated."""


class MediaError(ValueError):
    """Raised when a file cannot be decoded; the message is one line that says why.

    The readers here leave out the file's name, which those who know of other copies add.
    """


class NoSoundError(MediaError):
    """Raised when a file has no audio stream, or an empty one."""


@dataclass(frozen=True)
class Frames:
    """Frames of a clip, (height, width, 3) each, and on request the frame that follows each of them."""

    images: list[Bytes] = field(default_factory=list)
    successors: list[Bytes] = field(default_factory=list)
    seconds: float = 0.0
    """The time at which the last frame of the file ends."""


def read_audio(path: Path, rate: int, seconds: float) -> NDArray[np.float32]:
    """Reads the first ``seconds`` of a file's sound as (samples,), the mean of its channels, with full scale at 1.

    Time 0 is when a player starts, which is when the earliest of the sound and the video starts: a sound that starts
    later than the video is silent until then. Gaps in the sound are silent too. Non-finite samples become 0; damaged
    packets are skipped.

    Raises:
        NoSoundError: if there is no audio stream, or it has no samples.
        MediaError: if no sound can be decoded, or less than half of the declared duration.
    """
    track = SoundTrack(rate, seconds)
    with _opened(path) as container:
        stream = _audio(container)
        damaged, start = 0, _start(container, stream, _best_video(container))
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                damaged += 1
                continue
            for frame in frames:
                if frame.samples == 0 or not _RATES[0] <= frame.sample_rate <= _RATES[1]:
                    damaged += 1
                    continue
                if start is None:
                    start = frame.time or 0.0
                track.add(frame, None if frame.time is None else frame.time - start)
            if track.full:
                break
        samples = track.finish()
        if track.decoded == 0:
            raise MediaError("has no sound that can be decoded") if damaged else NoSoundError("has no sound")
        if len(samples) == 0:
            raise NoSoundError(f"has no sound in its first {seconds:g} s: it begins at {track.first:.2f} s")
        _check_covered(track.decoded, min(_declared(stream), seconds - track.first))
    return samples


def read_frames(
    path: Path, count: int, size: int, seconds: float, successors: bool = False, absolute: bool = False
) -> Frames:
    """Reads the frames shown at the centres of ``count`` equal parts of the first ``seconds``, ``count`` at most.

    Time 0 is when a player starts, as for `read_audio`. Frames are chosen by their timestamps, so the frame rate may
    vary; packets that a player decodes without showing them, before the start of a cut, do not count. A shorter clip is
    divided as a whole. A frame shown at several centres is returned once; a still image gives a single frame. Frames
    are turned upright and scaled to ``size`` x ``size``. With ``successors``, the next frame of each is returned too,
    and a frame that has none is omitted.

    With ``absolute``, a shorter clip is not divided as a whole: exactly ``count`` frames are returned, one for each
    part of ``seconds``, and a player that has come to the end goes on showing the last frame, which is then its own
    successor.

    Raises:
        MediaError: if no frame can be decoded, a frame is too large, no frame is shown in time, or the file contains
            less than half of its declared duration.
    """
    span = _span(path)
    if span.first >= seconds:
        raise MediaError(f"shows no frame in its first {seconds:g} s: the video begins at {span.first:.2f} s")
    length = seconds if absolute else min(span.end, seconds)
    targets = [(part + 0.5) * length / count for part in range(count)]
    selection = FrameSelection(path, size, successors, absolute, targets)
    last = span.first
    with _opened(path) as container:
        for frame, time in _decoded(container, _video(container), span):
            last = time
            if selection.add(frame, time):
                break
        else:
            selection.finish()
            if selection.previous is None:
                raise MediaError("has no frame that can be decoded")
            _check_covered(last - span.first, min(span.last, seconds) - span.first)
    return Frames(selection.images, selection.successors, span.end)


class _Span(NamedTuple):
    """The times at which a file's first and last frames are shown and the last one ends, in seconds from its start."""

    start: float
    """The time stamp of the file's start, at which a player starts."""
    first: float
    last: float
    end: float
    stamped: bool
    """Whether any packet has a time stamp."""


def _span(path: Path) -> _Span:
    """Returns when a file's frames are shown, from its packets, without decoding them."""
    with _opened(path) as container:
        stream = _video(container)
        base, step, earliest = float(stream.time_base or 0), _step(stream), _earliest(container)
        first, last, end, number, stamped = math.inf, -math.inf, -math.inf, 0, False
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard or (packet.pts or 0) * base < earliest:
                continue
            if packet.pts is not None and not stamped:  # packets before the first time stamp are not shown
                first, last, end, stamped = math.inf, -math.inf, -math.inf, True
            if packet.pts is not None or not stamped:
                time = number * step if packet.pts is None else packet.pts * base
                first, last = min(first, time), max(last, time)
                end = max(end, time + (packet.duration * base if packet.duration else step))
            number += 1
        if number == 0:
            raise MediaError("has no frames")
        _check_covered(end - first, _declared(stream))
        sound_start = _start(container, _best_audio(container))
    start = first if sound_start is None else min(first, sound_start)
    return _Span(start, first - start, last - start, end - start, stamped)


def _earliest(container: InputContainer) -> float:
    """Returns the time stamp before which nothing is shown."""
    return 0.0 if container.format.name.startswith(_FROM_ZERO) else -math.inf


def _start(container: InputContainer, *streams: AudioStream | VideoStream | None) -> float | None:
    """Returns the time stamp at which the first of these streams starts, or ``None`` if the file says it of none."""
    known = [stream for stream in streams if stream is not None and stream.start_time is not None]
    starts = [max(_seconds(stream, stream.start_time or 0), _earliest(container)) for stream in known]
    return min(starts, default=None)


def _seconds(stream: AudioStream | VideoStream, time: int) -> float:
    """Converts a time in the units of a stream to seconds."""
    return float(time * (stream.time_base or 0))


def _decoded(container: InputContainer, stream: VideoStream, span: _Span) -> Iterator[tuple[VideoFrame, float]]:
    """Yields the frames that a player shows and that can be decoded, each with its time; damaged packets are skipped.

    A frame without a time stamp follows the frame before it. If there is none, it comes before the time stamps of the
    file start, so that it is not shown.
    """
    step, time = _step(stream), None if span.stamped else -_step(stream)
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            continue
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            _check_size(frame.width, frame.height)
            if frame.time is not None:
                time = frame.time - span.start
            elif time is not None:
                time += step
            if time is not None and time > span.first - step / 2:
                yield frame, time


def _step(stream: VideoStream) -> float:
    """Returns the time between two frames."""
    return 1 / float(stream.average_rate) if stream.average_rate else 0.04


def _declared(stream: AudioStream | VideoStream) -> float:
    """Returns the duration that a stream declares, in seconds, or 0."""
    return _seconds(stream, stream.duration or 0)


def _best_video(container: InputContainer) -> VideoStream | None:
    """Returns the video stream that a player chooses; the picture of a record's cover is none."""
    stream = container.streams.best("video") or next(iter(container.streams.video), None)
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        return None
    return stream


def _best_audio(container: InputContainer) -> AudioStream | None:
    """Returns the audio stream that a player chooses."""
    stream = container.streams.best("audio") or next(iter(container.streams.audio), None)
    return stream if isinstance(stream, AudioStream) else None


def _video(container: InputContainer) -> VideoStream:
    stream = _best_video(container)
    if stream is None:
        raise MediaError("has no video")
    _check_decoder(stream)
    _check_size(stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _audio(container: InputContainer) -> AudioStream:
    stream = _best_audio(container)
    if stream is None:
        raise NoSoundError("has no sound")
    _check_decoder(stream)
    if not _RATES[0] <= stream.rate <= _RATES[1]:
        raise MediaError(f"declares {stream.rate} samples per second, outside [{_RATES[0]}, {_RATES[1]}]")
    stream.codec_context.thread_count = 1
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
        wrong = wrong_kind(path)
        if wrong is not None:
            raise MediaError(f"cannot be decoded: it is {wrong}")
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
