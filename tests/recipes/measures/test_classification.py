"""The classification measures, worked by hand."""

import pytest

from multifuse.recipes.measures.classification import classification_measures


def test_measures_worked_by_hand() -> None:
    ours = classification_measures([0, 0, 1, 2, 2, 2], [0, 0, 0, 1, 2, 2])
    assert ours.accuracy == pytest.approx(4 / 6)
    # F1: class 0 has precision 1 and recall 2/3; class 1 has 0 for both; class 2 has precision 2/3 and recall 1.
    assert ours.macro_f1 == pytest.approx((0.8 + 0 + 0.8) / 3)
    assert ours.weighted_f1 == pytest.approx((3 * 0.8 + 0 + 2 * 0.8) / 6)
    assert ours.as_dict()["accuracy"] == ours.accuracy


def test_segments_count_separately_and_ignored_ones_do_not_count() -> None:
    assert classification_measures([[0, 1], [1, 1]], [[0, 0], [-100, 1]]).accuracy == pytest.approx(2 / 3)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"have the same shape, got \(2,\) and \(3,\)"):
        classification_measures([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least one that is not -100"):
        classification_measures([1], [-100])
