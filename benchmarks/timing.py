"""Times competing functions by turns in one process, so that changes in the machine's load affect all of them alike."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median of the turns, and their spread from the first to the last decile."""

    median: float
    low: float
    high: float
    turns: int


@dataclass(frozen=True)
class Comparison:
    """One of our functions against a peer or a whole; ``target`` is the largest acceptable ratio of the medians."""

    what: str
    peer: str
    ours: Timing
    theirs: Timing
    target: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours.median / self.theirs.median

    @property
    def is_missed(self) -> bool:
        return self.target is not None and self.ratio > self.target


_TURN = 0.01


def _nothing() -> None:
    """Waits for nothing: a call on a CPU has been done when it returns."""


def in_turns(
    functions: Mapping[str, Callable[[], object]], seconds: float, least: int = 5, wait: Callable[[], object] = _nothing
) -> dict[str, Timing]:
    """Times functions by turns for about ``seconds`` and at least ``least`` rounds.

    A turn lasts a hundredth of a second or one call, after a call that is not counted: calls are measured as they are
    used, one after another, with warm caches and with memory that the previous call has freed. ``wait`` is called
    before and after the calls of a turn, and returns when a device has done what it was asked.
    """
    repeats = {name: _calls_a_turn(function, wait) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    collects = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(next(iter(times.values()))) < least:
            for name, function in functions.items():
                function()
                times[name].append(_seconds(function, repeats[name], wait))
    finally:
        if collects:
            gc.enable()
    return {name: _timing(values) for name, values in times.items()}


def _calls_a_turn(function: Callable[[], object], wait: Callable[[], object]) -> int:
    function()
    return max(1, int(_TURN / _seconds(function, 3, wait)))


def _seconds(function: Callable[[], object], repeats: int, wait: Callable[[], object]) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    wait()
    return (time.perf_counter() - start) / repeats


def _timing(seconds: list[float]) -> Timing:
    low, median, high = np.percentile(seconds, [10, 50, 90])
    return Timing(float(median), float(low), float(high), len(seconds))
