"""Bootstrap intervals over samples."""

import numpy as np
from numpy.typing import NDArray


def mean_and_interval(differences: NDArray[np.float64], resamples: int = 10_000) -> tuple[float, float, float]:
    """Returns the mean and its 95 % percentile bootstrap interval."""
    random = np.random.default_rng(0)
    picks = random.integers(0, len(differences), (resamples, len(differences)))
    low, high = np.percentile(differences[picks].mean(1), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)
