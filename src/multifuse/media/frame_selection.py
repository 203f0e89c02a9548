"""Selects the frames of a video that are shown at given times, turned upright and scaled."""

from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from multifuse.media.rotation import upright

Bytes = NDArray[np.uint8]


class FrameSelection:
    """Collects the frames that are shown at the target times while a video is decoded."""

    def __init__(self, path: Path, size: int, with_successors: bool, repeats: bool, targets: list[float]) -> None:
        self.path, self.size, self.with_successors, self.repeats = path, size, with_successors, repeats
        self.targets = targets
        self.images: list[Bytes] = []
        self.successors: list[Bytes] = []
        self.previous: VideoFrame | None = None

    def add(self, frame: VideoFrame, time: float) -> bool:
        """Adds the next frame, shown from ``time`` on; returns whether every target now has its frame."""
        if self.previous is not None:
            passed = [target for target in self.targets if target < time]
            if passed:
                self._take(self.previous, frame, len(passed))
            self.targets = self.targets[len(passed) :]
        self.previous = frame
        return not self.targets

    def finish(self) -> None:
        """Assigns the last frame, which has no successor, to the remaining targets."""
        if self.targets and self.previous is not None and (self.repeats or not self.with_successors):
            self._take(self.previous, self.previous, len(self.targets))

    def _take(self, frame: VideoFrame, successor: VideoFrame, times: int) -> None:
        copies = times if self.repeats else 1
        self.images += [self._scaled(frame)] * copies
        if self.with_successors:
            self.successors += [self._scaled(successor)] * copies

    def _scaled(self, frame: VideoFrame) -> Bytes:
        """Scales a frame, then turns it upright, which is the same the other way round, since the result is square."""
        scaled = frame.reformat(width=self.size, height=self.size, format="rgb24", interpolation="AREA")
        return upright(np.asarray(scaled.to_ndarray(), np.uint8), frame, self.path)
