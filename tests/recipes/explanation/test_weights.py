"""Mean weights by group, and their entropy, worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from multifuse.recipes.explanation.gathered import Aggregates, Explanation
from multifuse.recipes.explanation.weights import weight_tables
from tests.recipes.explanation.explanations import explanation


def of_two_modalities(labels: list[float], classes: tuple[str, ...] | None) -> Explanation:
    """Four samples; the last has only the second modality."""
    streams = np.zeros((4, 2, 3), np.float32)
    aggregates = Aggregates(
        level_weights=np.array([[1, 0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], np.float32),
        modality_weights=np.array([[0.5, 0.5], [1, 0], [0.5, 0.5], [0, 1]], np.float32),
        private_gates=np.array([[0.25, 0.5], [0.75, 0.5], [0.5, 0.5], [0, 1]], np.float32),
        present=np.array([[True, True], [True, True], [True, True], [False, True]]),
        shared=streams,
        private=streams,
    )
    whole = explanation(samples=4, modalities=2, num_levels=2)
    return replace(whole, labels=np.array(labels), classes=classes, aggregates=aggregates)


def test_means_by_class_count_absent_modalities_as_0_in_weights_and_not_in_gates() -> None:
    levels, modalities, gates = weight_tables(of_two_modalities([1, 1, -100, 2], ("never", "bark", "clock")))
    assert [(row.group, row.count) for row in levels.rows] == [("bark", 2), ("clock", 1), ("all", 4)]
    assert [row.means for row in levels.rows] == [(0.75, 0.25), (0.5, 0.5), (0.625, 0.375)]
    assert [row.means for row in modalities.rows] == [(0.75, 0.25), (0, 1), (0.5, 0.5)]
    assert gates.rows[0].means == (0.5, 0.5)
    assert math.isnan(gates.rows[1].means[0])
    assert gates.rows[2].means == (0.5, 0.625)
    assert levels.entropy == pytest.approx(0.75)
    assert modalities.entropy == pytest.approx(2 / 3), "a sample with one modality has nothing to choose from"
    assert gates.entropy is None


def test_scores_are_grouped_as_acc5_rounds_them() -> None:
    levels, _, _ = weight_tables(of_two_modalities([-2.9, -1.5, 0.5, 0.51], None))
    assert [(row.group, row.count) for row in levels.rows] == [
        ("up to -1.5", 2), ("-0.5 to 0.5", 1), ("0.5 to 1.5", 1), ("all", 4)
    ]  # fmt: skip


def test_the_entropy_of_one_level_is_undefined() -> None:
    levels, _, _ = weight_tables(explanation(num_levels=1))
    assert levels.entropy is not None
    assert math.isnan(levels.entropy)
