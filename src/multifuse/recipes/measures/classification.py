"""The measures of the audio-visual benchmarks: one class a clip, or one a segment."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, f1_score

from multifuse.recipes.measures.measures import Choice, Shown

CHOICE = Choice(
    metric="accuracy",
    greater_is_better=True,
    title="Classification",
    shown=(Shown("accuracy", "Accuracy"), Shown("macro_f1", "F1 macro"), Shown("weighted_f1", "F1 weighted")),
    each_epoch=("accuracy", "macro_f1"),
)


@dataclass(frozen=True)
class ClassificationMeasures:
    """Measures of predicted classes against labels, fractions."""

    accuracy: float
    macro_f1: float
    """The mean of the classes' F1, over the classes that occur in the labels or the predictions."""
    weighted_f1: float
    """The same, weighted by the labels' counts."""

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return asdict(self)


def classification_measures(predictions: ArrayLike, labels: ArrayLike) -> ClassificationMeasures:
    """Computes all measures; a label of -100 does not count.

    Raises:
        ValueError: shapes that differ, or nothing to measure.
    """
    predicted, truth = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != truth.shape:
        raise ValueError(f"predictions and labels must be of one shape, got {predicted.shape} and {truth.shape}")
    counted = truth != -100
    predicted, truth = predicted[counted], truth[counted]
    if truth.size == 0:
        raise ValueError("labels must hold at least one that counts, got none")
    return ClassificationMeasures(
        accuracy=float(accuracy_score(truth, predicted)),
        macro_f1=float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
        weighted_f1=float(f1_score(truth, predicted, average="weighted", zero_division=0.0)),
    )
