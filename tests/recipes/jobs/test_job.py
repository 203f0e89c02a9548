"""What every job writes of the course of its epochs, and the mean entropy of CLCR's weights."""

import numpy as np
import pytest

from multifuse.recipes.jobs.job import _epochs, mean_entropy


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


def test_the_epochs_of_a_resumed_run_hold_no_times_and_nothing_of_training() -> None:
    """Trainer adds a time to the first evaluation of a process: a resumed run would differ from an undisturbed one."""
    history = [
        {"epoch": 1.0, "loss": 0.5, "learning_rate": 1e-3},
        {
            "epoch": 1.0,
            "eval_mae": 0.4,
            "eval_corr": float("nan"),
            "eval_runtime": 1.0,
            "eval_model_preparation_time": 2.0,
        },
        {"epoch": 1.0, "eval_mae": 0.3, "eval_level_weight_1": 0.2, "eval_samples_per_second": 9.0, "eval_loss": 0.6},
    ]
    assert _epochs(history, "mae") == [
        {"epoch": 1.0, "mae": 0.4, "corr": None},
        {"epoch": 1.0, "mae": 0.3, "level_weight_1": 0.2, "loss": 0.6},
    ]
