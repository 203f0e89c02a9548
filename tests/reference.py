"""Reference implementations in float64 numpy, written from the definitions and independent of the library's code."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROW_KINDS = 7


def project_row(z: Array, budget: float) -> Array:
    """Projects one row, by bisecting the threshold down to neighbouring float64 numbers."""
    if budget <= 0:
        return np.zeros_like(z)
    if np.clip(z, 0, 1).sum() <= budget:
        return np.clip(z, 0, 1)
    low, high = 0.0, float(z.max())
    while True:
        middle = (low + high) / 2
        if middle <= low or middle >= high:
            return np.clip(z - high, 0, 1)
        if np.clip(z - middle, 0, 1).sum() > budget:
            low = middle
        else:
            high = middle


def project(z: Array, budget: Array, mask: NDArray[np.bool_] | None = None) -> Array:
    """Projects every row of z (R, T)."""
    alpha = np.zeros_like(z)
    for row in range(len(z)):
        valid = z[row] != -np.inf
        if mask is not None:
            valid &= mask[row]
        if valid.any():
            alpha[row, valid] = project_row(z[row, valid], float(budget[row]))
    return alpha


def mean_squared_canonical_correlation(x: Array, y: Array) -> float:
    """Computes it from the singular values of the product of orthonormal bases of the centred columns."""
    bases: list[Any] = [np.linalg.qr(values - values.mean(0))[0] for values in (x, y)]
    singular = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return float((singular**2).sum() / min(x.shape[1], y.shape[1]))


def adversarial_rows(random: np.random.Generator, rows: int, length: int, kind: int) -> Array:
    """Returns rows of one kind: spread, equal, tied, nearly equal, huge next to tiny, on the breakpoints, saturated."""
    z = random.normal(size=(rows, length))
    if kind == 1:
        z = np.repeat(random.normal(size=(rows, 1)), length, axis=1)
    elif kind == 2:
        z = np.round(z * 4) / 4
    elif kind == 3:
        z = 0.5 + 1e-6 * z
    elif kind == 4:
        z = z * 10.0 ** random.uniform(-6, 6, size=z.shape)
    elif kind == 6:
        z[:, :-1] = 2 + np.abs(z[:, :-1])  # all but one saturated: the sum is large, the excess small
    elif kind == 5:
        z = random.integers(-1, 4, size=z.shape).astype(float)
    return np.asarray(z.astype(np.float32), np.float64)
