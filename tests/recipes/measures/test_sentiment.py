"""The sentiment measures, worked by hand, and their corner cases."""

import math

import numpy as np
import pytest

from multifuse.recipes.measures.sentiment import sentiment_measures


def test_measures_worked_by_hand() -> None:
    labels = [-3.0, -0.5, 0.0, 0.5, 2.6]
    predictions = [-4.0, -1.5, -0.1, 0.4, 2.2]
    ours = sentiment_measures(predictions, labels)
    assert ours.mae == pytest.approx((1 + 1 + 0.1 + 0.1 + 0.4) / 5)
    assert ours.corr == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    # Rounded half to even: labels -3 0 0 0 3, predictions -3 -2 0 0 2; with bounds of 2: -2 0 0 0 2 and -2 -2 0 0 2.
    assert ours.acc7 == pytest.approx(3 / 5)
    assert ours.acc5 == pytest.approx(4 / 5)
    # p >= 0: - - - + +; t >= 0: - - + + +. Without t = 0 all signs agree.
    assert ours.acc2_has0 == pytest.approx(4 / 5)
    assert ours.acc2_non0 == 1
    # F1 is 4/5 for the three positives and 4/5 for the two negatives.
    assert ours.f1_has0 == pytest.approx((3 * 0.8 + 2 * 0.8) / 5)
    assert ours.f1_non0 == 1


def test_a_prediction_of_zero_is_not_positive_where_zero_labels_are_dropped() -> None:
    ours = sentiment_measures([0.0, 1.0], [1.0, 1.0])
    assert ours.acc2_non0 == 0.5
    assert ours.acc2_has0 == 1.0


def test_undefined_measures_are_none_in_json() -> None:
    ours = sentiment_measures([0.5, 0.5], [0.0, 0.0])
    assert math.isnan(ours.corr)
    assert ours.as_dict()["corr"] is None
    assert ours.as_dict()["acc2_non0"] is None
    assert ours.as_dict()["mae"] == 0.5


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"have the same size >= 1, got \(2,\) and \(3,\)"):
        sentiment_measures([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="have the same size >= 1"):
        sentiment_measures([], [])
