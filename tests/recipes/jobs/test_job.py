"""What every job logs of CLCR's weights: their mean entropy."""

import numpy as np
import pytest

from multifuse.recipes.jobs.job import mean_entropy


def test_entropy_is_1_for_uniform_weights_0_for_one_hot_ones_and_the_mean_over_samples() -> None:
    uniform, one_hot = np.full((2, 3), 1 / 3, np.float32), np.eye(3, dtype=np.float32)[:2]
    assert mean_entropy(uniform) == pytest.approx(1.0)
    assert mean_entropy(one_hot) == 0.0
    assert mean_entropy(np.concatenate([uniform, one_hot])) == pytest.approx(0.5)


def test_entropy_of_half_and_half_among_four_is_a_half_by_hand() -> None:
    assert mean_entropy(np.array([[0.5, 0.5, 0.0, 0.0]])) == pytest.approx(np.log(2) / np.log(4))


def test_a_single_level_has_no_entropy_and_segments_count_one_by_one() -> None:
    assert mean_entropy(np.ones((4, 1))) == 0.0
    assert mean_entropy(np.stack([np.full((3, 2), 0.5), np.eye(2)[[0, 1, 0]]])) == pytest.approx(0.5)
