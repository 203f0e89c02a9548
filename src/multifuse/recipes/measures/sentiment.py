"""The sentiment measures of CMU-MOSI and CMU-MOSEI."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from multifuse.recipes.measures.measures import Choice, Shown

CHOICE = Choice(
    metric="mae",
    greater_is_better=False,
    title="Sentiment measures",
    shown=(
        Shown("mae", "MAE", percent=False),
        Shown("corr", "Corr", percent=False),
        Shown("acc7", "Acc-7"),
        Shown("acc5", "Acc-5"),
        Shown("acc2_has0", "Acc-2 has0"),
        Shown("f1_has0", "F1 has0"),
        Shown("acc2_non0", "Acc-2 non0"),
        Shown("f1_non0", "F1 non0"),
    ),
    each_epoch=("mae", "corr", "acc2_non0"),
)


@dataclass(frozen=True)
class SentimentMeasures:
    """Measures of predictions p against labels t; accuracies and F1 are fractions, undefined measures ``nan``."""

    mae: float
    """Mean absolute error; predictions are not clipped."""
    corr: float
    """Pearson's correlation; undefined if the predictions or the labels are constant."""
    acc7: float
    """Fraction of samples where p and t agree once clipped to [-3, 3] and rounded half to even."""
    acc5: float
    """Fraction of samples where p and t agree once clipped to [-2, 2] and rounded half to even."""
    acc2_has0: float
    """Accuracy of (p >= 0) against (t >= 0), on all samples."""
    f1_has0: float
    """F1 of (p >= 0) against (t >= 0), weighted by class size."""
    acc2_non0: float
    """Accuracy of (p > 0) against (t > 0), on samples where t is not 0."""
    f1_non0: float
    """F1 of (p > 0) against (t > 0) on the same samples, weighted by class size."""

    def as_dict(self) -> dict[str, float | None]:
        """Returns the measures for JSON, an undefined one as ``None``."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def sentiment_measures(predictions: ArrayLike, labels: ArrayLike) -> SentimentMeasures:
    """Computes all measures.

    Raises:
        ValueError: if the numbers of predictions and labels differ, or are 0.
    """
    p, t = np.asarray(predictions, np.float64).ravel(), np.asarray(labels, np.float64).ravel()
    if p.shape != t.shape or p.size == 0:
        raise ValueError(f"predictions and labels must have the same size >= 1, got {p.shape} and {t.shape}")
    nonzero = t != 0
    return SentimentMeasures(
        mae=float(mean_absolute_error(t, p)),
        corr=_pearson(p, t),
        acc7=_agreement(p, t, 3),
        acc5=_agreement(p, t, 2),
        acc2_has0=float(accuracy_score(t >= 0, p >= 0)),
        f1_has0=_weighted_f1(t >= 0, p >= 0),
        acc2_non0=float(accuracy_score(t[nonzero] > 0, p[nonzero] > 0)) if nonzero.any() else math.nan,
        f1_non0=_weighted_f1(t[nonzero] > 0, p[nonzero] > 0) if nonzero.any() else math.nan,
    )


def _pearson(p: NDArray[np.float64], t: NDArray[np.float64]) -> float:
    p, t = p - p.mean(), t - t.mean()
    scale = math.sqrt(float(p @ p) * float(t @ t))
    return float(p @ t) / scale if scale > 0 else math.nan


def _agreement(p: NDArray[np.float64], t: NDArray[np.float64], bound: int) -> float:
    return float(np.mean(np.round(p.clip(-bound, bound)) == np.round(t.clip(-bound, bound))))


def _weighted_f1(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    return float(f1_score(truth, prediction, average="weighted", zero_division=0.0))
