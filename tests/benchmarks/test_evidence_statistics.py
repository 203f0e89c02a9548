"""The statistics of the evidence: intervals and corrections worked by hand, p-values against scipy."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.evidence.statistics import estimate, holm, paired_p

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_the_interval_of_three_values_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    half = 4.302653 / sqrt(3)  # t of 2 degrees of freedom at 97.5 %, and a deviation of 1
    assert (found.mean, found.seeds) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    assert found.text(2) == "2.00 ± 2.48"
    assert found.signed(1) == "+2.0 (-0.5 to +4.5)"


def test_a_single_seed_has_no_interval() -> None:
    found = estimate([0.25])
    assert (found.low, found.high) == (0.25, 0.25)
    assert (found.text(), found.signed()) == ("0.250", "+0.250")


def test_p_is_that_of_scipys_paired_test() -> None:
    ours, theirs = [0.5, 0.7, 0.6, 0.9], [0.4, 0.8, 0.3, 0.5]
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    assert paired_p(differences) == pytest.approx(float(stats.ttest_rel(ours, theirs).pvalue))


@pytest.mark.parametrize(
    ("differences", "p_value"), [([], 1.0), ([0.3], 1.0), ([0.0, 0.0, 0.0], 1.0), ([-0.3, -0.3], 0.0)]
)
def test_p_without_a_spread_of_differences(differences: list[float], p_value: float) -> None:
    assert paired_p(differences) == p_value


def test_holm_by_hand() -> None:
    # In order: 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04, which is below the one before and takes its value.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(P_VALUES)
def test_holm_lowers_no_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    assert max(corrected) <= 1
    order = np.argsort(p_values)
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
