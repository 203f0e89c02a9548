"""What every job writes of the course of its epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import EvalPrediction

from multifuse.recipes.jobs.epoch_metrics import EpochMetrics, best_epoch, measured_epochs
from multifuse.recipes.jobs.sentiment import SentimentJob
from multifuse.recipes.measures import classification, sentiment
from multifuse.recipes.measures.measures import Choice


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
    epochs = measured_epochs(history, "mae")
    assert epochs == [
        {"epoch": 1.0, "corr": None, "mae": 0.4},
        {"epoch": 1.0, "level_weight_1": 0.2, "loss": 0.6, "mae": 0.3},
    ]
    assert [[*entry][1:] for entry in epochs] == [["corr", "mae"], ["level_weight_1", "loss", "mae"]]


@pytest.mark.parametrize(
    ("choice", "scores"), [(sentiment.CHOICE, [0.5, 0.3, 0.3, 0.4]), (classification.CHOICE, [0.5, 0.7, 0.7, 0.6])]
)
def test_the_best_epoch_is_the_first_with_the_least_error_or_the_highest_accuracy(
    choice: Choice, scores: list[float]
) -> None:
    history: list[dict[str, Any]] = [{"epoch": 1.0, "loss": 9.0}]
    history += [{"epoch": float(epoch), f"eval_{choice.metric}": score} for epoch, score in enumerate(scores, start=1)]
    assert best_epoch(history, choice) == 2.0


def test_weights_and_gates_are_named_by_level_and_modality(tmp_path: Path) -> None:
    logits, labels = np.zeros((2, 1), np.float32), np.ones(2, np.float32)
    levels = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    modalities = np.array([[1.0, 0.0], [0.8, 0.2]], np.float32)
    gates = np.array([[0.3, 0.5], [0.1, 0.7]], np.float32)
    metrics = EpochMetrics(SentimentJob(output=tmp_path), ("text", "audio"))(
        EvalPrediction(predictions=(logits, levels, modalities, gates), label_ids=labels)
    )
    assert metrics["mae"] == 1.0
    means = {name: value for name, value in metrics.items() if "_weight_" in name or "_gate_" in name}
    assert means == pytest.approx(
        {
            "level_weight_1": 0.75,
            "level_weight_2": 0.25,
            "modality_weight_text": 0.9,
            "modality_weight_audio": 0.1,
            "private_gate_text": 0.2,
            "private_gate_audio": 0.6,
        }
    )
    assert metrics["level_entropy"] == pytest.approx(0.5)


def test_the_weights_of_segments_are_averaged_like_those_of_samples(tmp_path: Path) -> None:
    levels = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]], np.float32)  # (B, S, L)
    gates = np.full((2, 2, 1), 0.5, np.float32)
    metrics = EpochMetrics(SentimentJob(output=tmp_path), ("audio",))(
        EvalPrediction((np.zeros((2, 1), np.float32), levels, np.ones_like(gates), gates), np.ones(2, np.float32))
    )
    assert (metrics["level_weight_1"], metrics["level_weight_2"]) == (0.25, 0.75)
