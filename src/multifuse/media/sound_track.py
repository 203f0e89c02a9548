"""Builds a clip's sound from decoded pieces: one channel, one rate, every piece at its time on the clip's clock."""

from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_LOUDEST = 32768.0
"""The largest amplitude that is kept: decoders overshoot 1 a little, and some float files hold 16-bit numbers."""
_JITTER = 0.1
"""The difference in seconds between a piece's time and the end of the one before it that is not taken for a gap."""
_LONGEST_GAP = 10.0
"""A larger jump is not a gap but a new time base, as where two broadcasts are joined: the pieces follow each other."""


class SoundTrack:
    """The first ``seconds`` of a sound, silent where no piece was added.

    The channels of a piece are averaged, as librosa does (FFmpeg would add them, and clip the sum), and the result is
    resampled. Layout, sample format and rate may change from piece to piece.
    """

    def __init__(self, rate: int, seconds: float) -> None:
        self.rate = rate
        self.decoded = 0.0
        """The length of the added pieces, in seconds."""
        self.first = 0.0
        """The time of the first piece."""
        self._samples: Samples = np.zeros(round(rate * seconds), np.float32)
        self._end = 0
        self._run: _Run | None = None

    @property
    def full(self) -> bool:
        """Whether the whole length has been reached."""
        return self._end >= len(self._samples)

    def add(self, frame: AudioFrame, time: float | None) -> None:
        """Adds a piece that is heard from ``time`` on; one without a time follows the piece before it."""
        values = _averaged(frame)
        run = self._run
        if run is None:
            self.first = time or 0.0
            run = self._run = _Run(frame.sample_rate, self.rate, self.first)
        else:
            gap = 0.0 if time is None else time - run.end
            gap = gap if _JITTER < gap <= _LONGEST_GAP else 0.0
            if gap or frame.sample_rate != run.source_rate:
                self._write(run.rest())
                run = self._run = _Run(frame.sample_rate, self.rate, run.end + gap)
        self.decoded += len(values) / run.source_rate
        self._write(run.resampled(values))

    def finish(self) -> Samples:
        """Returns the sound (samples,), from time 0 to the end of its last piece."""
        if self._run is not None and not self.full:
            self._write(self._run.rest())
        return self._samples[: self._end]

    def _write(self, piece: tuple[int, Samples]) -> None:
        start, values = piece
        values = values[max(0, -start) :]
        start = max(0, start)
        values = values[: max(0, len(self._samples) - start)]
        self._samples[start : start + len(values)] = values
        if len(values):
            self._end = max(self._end, start + len(values))


class _Run:
    """Pieces of one sampling rate that follow each other without a gap."""

    def __init__(self, source_rate: int, rate: int, start: float) -> None:
        self.source_rate, self.rate, self.start = source_rate, rate, start
        self.read = self.written = 0
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)

    @property
    def end(self) -> float:
        return self.start + self.read / self.source_rate

    def resampled(self, values: Samples) -> tuple[int, Samples]:
        """Resamples a piece, and returns the position of the result and the result."""
        frame = av.AudioFrame.from_ndarray(values[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self.source_rate, self.read, Fraction(1, self.source_rate)
        self.read += len(values)
        return self._placed([values] if self.source_rate == self.rate else _arrays(self._resampler.resample(frame)))

    def rest(self) -> tuple[int, Samples]:
        """Returns what the resampler still holds, and its position."""
        if self.source_rate == self.rate or self.read == 0:
            return self._placed([])
        return self._placed(_arrays(self._resampler.resample(None)))

    def _placed(self, parts: list[Samples]) -> tuple[int, Samples]:
        position = round(self.start * self.rate) + self.written
        values = np.concatenate([np.zeros(0, np.float32), *parts])
        self.written += len(values)
        return position, values


def _arrays(frames: list[AudioFrame]) -> list[Samples]:
    return [np.asarray(frame.to_ndarray()[0], np.float32) for frame in frames]


def _averaged(frame: AudioFrame) -> Samples:
    """Returns the mean of a frame's channels (samples,), with full scale at 1; values that are not finite become 0."""
    values = frame.to_ndarray()
    channels = values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
    scaled = channels.astype(np.float64)
    if values.dtype.kind == "u":
        scaled = scaled / 128 - 1
    elif values.dtype.kind == "i":
        scaled /= 2.0 ** (8 * values.dtype.itemsize - 1)
    scaled = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0), -_LOUDEST, _LOUDEST)
    return np.asarray(scaled.mean(axis=0), np.float32)
