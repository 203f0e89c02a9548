"""An RBF support vector machine and ridge regression on features pooled over time, by scikit-learn."""

from collections.abc import Callable, Collection, Iterator
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.features.mmsa import SPLITS, FeatureSequence, MMSAData, standardised

Kind = Literal["svm", "ridge"]
KINDS: tuple[Kind, ...] = ("svm", "ridge")
COSTS = (0.1, 1.0, 10.0, 100.0)
WIDTHS = (0.1, 1.0, 10.0)
"""Values of gamma, in units of one over the number of features."""
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)


class Splits(NamedTuple):
    """One array per split: features (N, D), or labels (N,)."""

    train: NDArray[Any]
    valid: NDArray[Any]
    test: NDArray[Any]


class PooledPredictions(NamedTuple):
    """Predictions (N,) on valid and test, and the hyper-parameters that are the best on valid."""

    valid: NDArray[Any]
    test: NDArray[Any]
    parameters: dict[str, float]


def regression(data: MMSAData, kind: Kind, modalities: Collection[str] | None = None) -> PooledPredictions:
    """Predicts the labels of a feature file from its pooled features; the smallest MAE on valid chooses.

    Args:
        data: a feature file's content, which is standardised here if it was not before.
        kind: ``"svm"``, an epsilon-SVR with an RBF kernel, or ``"ridge"``.
        modalities: the modalities to use; ``None``: all that the file stores.

    Raises:
        ValueError: an unknown kind, or a modality that the file lacks.
    """
    _check_kind(kind)
    names = tuple(data.widths if modalities is None else modalities)
    absent = [name for name in names if name not in data.widths]
    if absent or not names:
        raise ValueError(f"modalities must be some of {list(data.widths)}, got {list(names)}")
    labels = Splits(*(getattr(data, split).labels for split in SPLITS))
    return _chosen(
        _regressors(kind), pooled(data, names), labels, lambda ours, given: float(np.abs(ours - given).mean())
    )


def classification(features: Splits, labels: Splits, kind: Kind) -> PooledPredictions:
    """Predicts classes from features; the largest accuracy on valid chooses.

    Args:
        features: (N, D) arrays, which are scaled here.
        labels: (N,) arrays of classes.
        kind: ``"svm"``, an SVC with an RBF kernel, or ``"ridge"``, a ridge classifier.

    Raises:
        ValueError: an unknown kind, or arrays of other shapes.
    """
    _check_kind(kind)
    for name, values, given in zip(SPLITS, features, labels, strict=True):
        if values.ndim != 2 or given.shape != values.shape[:1]:
            raise ValueError(f"{name} must have features (N, D) and labels (N,), got {values.shape} and {given.shape}")
    return _chosen(_classifiers(kind), features, labels, lambda ours, given: float((ours != given).mean()))


def pooled(data: MMSAData, modalities: Collection[str]) -> Splits:
    """Returns the mean and the standard deviation of the standardised features over time, of all modalities: (N, D).

    A sample without tokens of a modality has zeros.
    """
    data = standardised(data)
    return Splits(
        *(
            np.concatenate([_mean_and_deviation(getattr(data, split).features[name]) for name in modalities], axis=1)
            for split in SPLITS
        )
    )


def _mean_and_deviation(sequence: FeatureSequence) -> NDArray[np.float64]:
    real = sequence.mask[..., None]
    count = np.maximum(sequence.lengths, 1)[:, None]
    values = sequence.values.astype(np.float64)
    mean = np.where(real, values, 0.0).sum(axis=1) / count
    variance = np.where(real, (values - mean[:, None]) ** 2, 0.0).sum(axis=1) / count
    return np.concatenate([mean, np.sqrt(variance)], axis=1)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}")


Candidates = Callable[[int], Iterator[tuple[dict[str, float], Any]]]
"""Yields hyper-parameters and the estimators that have them, for a number of features, the most regular ones first."""


def _regressors(kind: Kind) -> Candidates:
    from sklearn.linear_model import Ridge
    from sklearn.svm import SVR

    return _svms(SVR) if kind == "svm" else _ridges(Ridge)


def _classifiers(kind: Kind) -> Candidates:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.svm import SVC

    return _svms(SVC) if kind == "svm" else _ridges(RidgeClassifier)


def _svms(estimator: Any) -> Candidates:
    def candidates(width: int) -> Iterator[tuple[dict[str, float], Any]]:
        for cost, gamma in product(COSTS, WIDTHS):
            parameters = {"C": cost, "gamma": gamma / width}
            yield parameters, estimator(kernel="rbf", **parameters)

    return candidates


def _ridges(estimator: Any) -> Candidates:
    def candidates(width: int) -> Iterator[tuple[dict[str, float], Any]]:
        for alpha in reversed(PENALTIES):
            yield {"alpha": alpha}, estimator(alpha=alpha)

    return candidates


def _chosen(
    candidates: Candidates, features: Splits, labels: Splits, error: Callable[[NDArray[Any], NDArray[Any]], float]
) -> PooledPredictions:
    """Fits all candidates on train and keeps the one with the smallest error on valid, the first of equals."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.train)
    train, valid, test = (scaler.transform(values) for values in features)
    best, smallest = None, np.inf
    for parameters, estimator in candidates(train.shape[1]):
        predictions = estimator.fit(train, labels.train).predict(valid)
        if best is None or error(predictions, labels.valid) < smallest:
            best, smallest = (predictions, estimator, parameters), error(predictions, labels.valid)
    assert best is not None
    predictions, estimator, parameters = best
    return PooledPredictions(predictions, estimator.predict(test), parameters)
