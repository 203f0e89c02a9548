"""FeatureInput: standardises feature sequences by the statistics of the samples that a model was trained on."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multifuse._internal.plain import plain


@dataclass(frozen=True)
class FeatureInput:
    """Standardises features by given statistics: ``(values - mean) / deviation``.

    Args:
        mean: (D,), of the training tokens.
        deviation: (D,), their standard deviation, 1 for a feature that does not vary.

    Shape:
        Numbers (T, D), or (D,) for a single token -> float32 (T, D).

    Raises:
        ValueError: another width, or values that are not finite.

    Example:
        >>> FeatureInput(mean=(1.0, 2.0), deviation=(1.0, 2.0))([[1, 2], [2, 4]])
        tensor([[0., 0.],
                [1., 1.]])
    """

    kind: ClassVar[str] = "features"

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "deviation"):
            object.__setattr__(self, name, tuple(plain(getattr(self, name))))
        if not self.mean or len(self.mean) != len(self.deviation):
            lengths = f"{len(self.mean)} and {len(self.deviation)}"
            raise ValueError(f"mean and deviation must have the same length, at least 1, got {lengths}")
        if not np.isfinite(self.mean).all():
            raise ValueError("mean must be finite")
        if not (np.isfinite(self.deviation) & (np.asarray(self.deviation) > 0)).all():
            raise ValueError(f"deviation must be finite and > 0, got {min(self.deviation)} to {max(self.deviation)}")

    @classmethod
    def of(cls, tokens: NDArray[Any]) -> "FeatureInput":
        """Returns the statistics of tokens (N, D); without any, features stay as they are."""
        if len(tokens) == 0:
            return cls((0.0,) * tokens.shape[1], (1.0,) * tokens.shape[1])
        values = tokens.astype(np.float64)
        mean, deviation = values.mean(0), values.std(0)
        deviation = np.where(deviation > 1e-8 * (1 + np.abs(mean)), deviation, 1.0)
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()))

    def standardised(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Standardises features (..., D)."""
        return np.asarray((values - np.array(self.mean)) / np.array(self.deviation), np.float32)

    def __call__(self, value: Any) -> Tensor:
        values = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        if values.dtype.kind not in "fiu" or values.ndim not in (1, 2) or values.shape[-1] != len(self.mean):
            raise ValueError(f"must be numbers of shape (tokens, {len(self.mean)}), got {values.dtype} {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("must be finite")
        return torch.from_numpy(self.standardised(np.atleast_2d(values)))
