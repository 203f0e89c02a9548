"""The measures of the audio-visual benchmarks, where each clip or each segment has one class."""

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
    """Measures of predicted classes against labels, as fractions."""

    accuracy: float
    macro_f1: float
    """Mean F1 over the classes that occur in the labels or the predictions."""
    weighted_f1: float
    """Mean F1 over these classes, weighted by their number of labels."""

    def as_dict(self) -> dict[str, float | None]:
        """Returns the measures for JSON."""
        return asdict(self)


def classification_measures(predictions: ArrayLike, labels: ArrayLike) -> ClassificationMeasures:
    """Computes all measures; labels of -100 are ignored.

    Raises:
        ValueError: if the shapes differ, or all labels are ignored.
    """
    predicted, truth = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != truth.shape:
        raise ValueError(f"predictions and labels must have the same shape, got {predicted.shape} and {truth.shape}")
    valid = truth != -100
    predicted, truth = predicted[valid], truth[valid]
    if truth.size == 0:
        raise ValueError("labels must hold at least one that is not -100, got none")
    return ClassificationMeasures(
        accuracy=float(accuracy_score(truth, predicted)),
        macro_f1=float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
        weighted_f1=float(f1_score(truth, predicted, average="weighted", zero_division=0.0)),
    )
