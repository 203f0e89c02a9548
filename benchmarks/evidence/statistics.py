"""Means over seeds with their intervals, and paired tests corrected for their number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean over seeds and its 95 % interval by Student's t; a single seed has no interval."""

    mean: float
    low: float
    high: float
    seeds: int

    def text(self, digits: int = 3) -> str:
        """Returns the mean and half the width of the interval."""
        if self.seeds < 2:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {(self.high - self.low) / 2:.{digits}f}"

    def signed(self, digits: int = 3) -> str:
        """Returns a difference and its interval."""
        if self.seeds < 2:
            return f"{self.mean:+.{digits}f}"
        return f"{self.mean:+.{digits}f} ({self.low:+.{digits}f} to {self.high:+.{digits}f})"


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean of values that differ by their seed, and its interval."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Estimate(mean, mean, mean, count)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half, count)


def paired_p(differences: Sequence[float]) -> float:
    """Returns the two-sided p-value of a paired t-test, given the differences by seed; 1 with fewer than two."""
    if len(differences) < 2:
        return 1.0
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    return float(2 * stats.t.sf(abs(np.mean(differences)) / error, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values corrected for their number by Holm's method, in the order given."""
    order = np.argsort(p_values)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
