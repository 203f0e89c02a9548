"""Pooled features and the classical models on them: pooling by hand, and a choice that valid alone makes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multifuse.recipes.data.features.mmsa import SPLITS, MMSAData, read_mmsa, standardised
from multifuse.recipes.pooled import KINDS, PENALTIES, Kind, Splits, classification, pooled, regression
from tests.files import mmsa_splits, write

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def data(tmp_path: Path) -> MMSAData:
    """Returns 40 samples per split whose label is the mean of the first audio feature; one has no audio."""
    content = read_mmsa(write(tmp_path / "data.pkl", mmsa_splits(count=40)))
    splits = {}
    for name in SPLITS:
        split = getattr(content, name)
        audio = split.features["audio"]
        lengths = np.where(np.arange(40) == 3, 0, audio.lengths)
        audio = replace(audio, lengths=lengths)
        audio = replace(audio, values=audio.values * audio.mask[..., None])
        labels = audio.values[:, :, 0].sum(1) / np.maximum(lengths, 1)
        splits[name] = replace(split, features={**split.features, "audio": audio}, labels=labels.astype(np.float32))
    return replace(content, **splits)


def test_pooling_takes_the_mean_and_deviation_of_real_standardised_tokens(data: MMSAData) -> None:
    features = pooled(data, ("audio", "vision"))
    sequence = standardised(data).test.features["audio"]
    real = sequence.values[7, : sequence.lengths[7]].astype(np.float64)
    np.testing.assert_allclose(features.test[7, :10], [*real.mean(0), *real.std(0)], atol=1e-5)
    assert not features.test[3, :10].any(), "a sample without audio has zeros"
    assert features.train.shape == (40, 2 * (5 + 4))
    assert np.array_equal(pooled(standardised(data), ("audio",)).valid.round(4), features.valid[:, :10].round(4))


@kinds
def test_regression_learns_the_mean_of_a_feature(data: MMSAData, kind: Kind) -> None:
    result = regression(data, kind, ("audio",))
    guess = np.abs(data.train.labels.mean() - data.test.labels).mean()
    assert np.abs(result.test - data.test.labels).mean() < 0.4 * guess
    assert result.valid.shape == result.test.shape == (40,)
    assert set(result.parameters) == ({"C", "gamma"} if kind == "svm" else {"alpha"})


@kinds
def test_classification_of_plain_arrays_learns_two_clusters(kind: Kind) -> None:
    features, labels = clusters(distance=2.0)
    result = classification(features, labels, kind)
    assert (result.valid == labels.valid).mean() > 0.9
    assert (result.test == labels.test).mean() > 0.9


def clusters(distance: float) -> tuple[Splits, Splits]:
    random = np.random.default_rng(0)
    labels = Splits(*(np.arange(60) % 2 for _ in SPLITS))
    return Splits(*(1000 * (random.normal(size=(60, 4)) + distance * given[:, None]) for given in labels)), labels


@kinds
def test_valid_chooses_and_test_does_not(kind: Kind) -> None:
    features, labels = clusters(distance=0.5)
    result = classification(features, labels, kind)
    swapped = classification(features, labels._replace(test=1 - labels.test), kind)
    assert swapped.parameters == result.parameters
    assert np.array_equal(swapped.test, result.test)


def test_the_chosen_ridge_is_the_best_on_valid_and_the_most_regular_of_equals() -> None:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    features, labels = clusters(distance=0.5)
    result = classification(features, labels, "ridge")
    scaler = StandardScaler().fit(features.train)

    def accuracy(alpha: float) -> float:
        model = RidgeClassifier(alpha=alpha).fit(scaler.transform(features.train), labels.train)
        return float((model.predict(scaler.transform(features.valid)) == labels.valid).mean())

    best = max(accuracy(alpha) for alpha in PENALTIES)
    assert result.parameters["alpha"] == max(alpha for alpha in PENALTIES if accuracy(alpha) == best)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "forest"}, r"kind must be one of \['svm', 'ridge'\], got 'forest'"),
        ({"modalities": ("audio", "smell")}, r"modalities must be some of .*, got \['audio', 'smell'\]"),
        ({"modalities": ()}, "modalities must be some of"),
    ],
)
def test_bad_arguments_of_a_regression_are_named(data: MMSAData, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regression(data, **{"kind": "ridge", **change})


@pytest.mark.parametrize("shape", [(60,), (59, 4)])
def test_arrays_of_other_shapes_are_named(shape: tuple[int, ...]) -> None:
    features, labels = clusters(distance=1.0)
    wrong: NDArray[Any] = np.zeros(shape)
    with pytest.raises(ValueError, match=r"valid must have features \(N, D\) and labels \(N,\), got"):
        classification(features._replace(valid=wrong), labels, "svm")
