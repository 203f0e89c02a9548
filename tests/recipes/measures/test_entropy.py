"""The normalised entropy of weights: 1 if they are uniform, 0 if one has everything."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifuse.recipes.measures.entropy import normalised_entropy


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_entropy_is_between_0_and_1_and_1_where_weights_are_uniform(width: int, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    possible = random.random((rows, width)) < 0.7
    possible[:, :2] = True
    weights = np.where(possible, random.random((rows, width)), 0).astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    assert 0 <= normalised_entropy(weights, possible) <= 1 + 1e-6
    uniform = (possible / possible.sum(1, keepdims=True)).astype(np.float32)
    assert normalised_entropy(uniform, possible) == pytest.approx(1)
    assert normalised_entropy(np.eye(width, dtype=np.float32), np.ones((width, width), bool)) == 0


def test_half_and_half_among_four_is_a_half_by_hand_and_rows_are_averaged() -> None:
    weights = np.array([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    everywhere = np.ones_like(weights, bool)
    assert normalised_entropy(weights[:1], everywhere[:1]) == pytest.approx(0.5)
    assert normalised_entropy(weights, everywhere) == pytest.approx(0.75)


def test_a_sample_with_a_single_modality_has_nothing_to_choose_and_does_not_count_as_collapsed() -> None:
    weights, present = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[True, True], [True, False]])
    assert normalised_entropy(weights, present) == pytest.approx(1.0)
    assert math.isnan(normalised_entropy(weights[1:], present[1:]))
