"""Mean level weights, modality weights and private gates by class or score, and how uniform the weights are."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.explanation.gathered import Explanation
from multifuse.recipes.measures.entropy import normalised_entropy

_SCORES = {-2: "up to -1.5", -1: "-1.5 to -0.5", 0: "-0.5 to 0.5", 1: "0.5 to 1.5", 2: "from 1.5"}


@dataclass(frozen=True)
class WeightRow:
    """The means of one group; nan where no sample of it has the modality."""

    group: str
    count: int
    means: tuple[float, ...]


@dataclass(frozen=True)
class WeightTable:
    """The means of all groups, the last of which is everything."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[WeightRow, ...]
    entropy: float | None
    """The mean normalised entropy, nan if there is nothing to choose from; ``None`` for gates, which are no shares."""


def weight_tables(explanation: Explanation) -> tuple[WeightTable, WeightTable, WeightTable]:
    """Computes the tables of omega, beta and eta over the samples, or segments, of each class or range of scores."""
    aggregates = explanation.aggregates
    groups = list(_groups(explanation))
    levels = tuple(f"level {level}" for level in range(1, explanation.levels + 1))
    present = aggregates.present
    everywhere = np.ones_like(aggregates.level_weights, bool)
    return (
        WeightTable(
            "Level weights (omega)",
            levels,
            _rows(groups, aggregates.level_weights, everywhere),
            normalised_entropy(aggregates.level_weights, everywhere),
        ),
        WeightTable(
            "Modality weights (beta)",
            explanation.modalities,
            _rows(groups, aggregates.modality_weights, np.ones_like(present)),
            normalised_entropy(aggregates.modality_weights, present),
        ),
        WeightTable(
            "Private gates (eta)", explanation.modalities, _rows(groups, aggregates.private_gates, present), None
        ),
    )


def _groups(explanation: Explanation) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yields the rows of each class that occurs, or of each range of scores, as Acc-5 rounds them; and all rows."""
    labels = explanation.labels
    keys = labels if explanation.classes is not None else np.round(labels.clip(-2, 2)).astype(np.int64)
    for key in np.unique(keys[explanation.labelled]):
        name = _SCORES[int(key)] if explanation.classes is None else explanation.classes[key]
        yield name, np.flatnonzero(keys == key)
    yield "all", np.arange(len(labels))


def _rows(
    groups: list[tuple[str, NDArray[np.int64]]], weights: NDArray[np.float32], counted: NDArray[np.bool_]
) -> tuple[WeightRow, ...]:
    rows = []
    for name, members in groups:
        counts = counted[members].sum(axis=0)
        sums = np.where(counted[members], weights[members], 0.0).sum(axis=0, dtype=np.float64)
        means = (float(total / count) if count else math.nan for total, count in zip(sums, counts, strict=True))
        rows.append(WeightRow(name, len(members), tuple(means)))
    return tuple(rows)
