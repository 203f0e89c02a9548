"""How uniform weights that sum to 1 are, as a normalised entropy."""

import math

import numpy as np
from numpy.typing import NDArray


def normalised_entropy(weights: NDArray[np.floating], possible: NDArray[np.bool_]) -> float:
    """Returns the mean over rows of the entropy of their weights, divided by the log of the number of possible ones.

    1 is uniform and 0 all on one. Rows with fewer than two possible weights do not count; without others it is nan.
    """
    count = possible.sum(axis=1)
    rows = np.where(possible, weights, 0.0).astype(np.float64)[count > 1]
    if not len(rows):
        return math.nan
    entropies = -(rows * np.log(np.where(rows > 0, rows, 1.0))).sum(axis=1) / np.log(count[count > 1])
    return float(entropies.mean())
