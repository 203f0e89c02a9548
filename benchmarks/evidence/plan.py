"""Which runs each table needs. Learning rates are chosen first, from one grid for all, by one seed's ``valid``."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.evidence.runs import Run, load

LEARNING_RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (1, 2, 3, 4, 5)
CLCR = "clcr"
FUSIONS = (CLCR, "late-fusion", "cross-attention", "concatenation", "mult", "low-rank", "shared-private")
POOLED = ("svm", "ridge")
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "ablation": {
        "no InterCAD": {"use_inter_cad": False},
        "no IntraCED": {"use_intra_ced": False},
        "no hierarchy": {"use_hierarchy": False},
        "no regularisers": {"lambda_intra": 0.0, "lambda_inter": 0.0},
        "full mix": {"shuffle_levels": True},
    },
    "budget": {
        "dense": {"gamma": 1000.0, "init_participation": 0.999},
        "gamma 0.75": {"gamma": 0.75},
        "gamma 0.5": {"gamma": 0.5},
        "gamma 0.25": {"gamma": 0.25},
    },
    "sensitivity": {
        "lambdas 0.01": {"lambda_intra": 0.01, "lambda_inter": 0.01},
        "lambdas 0.5": {"lambda_intra": 0.5, "lambda_inter": 0.5},
        "ranks 16, 16": {"shared_rank": 16, "private_rank": 16},
        "ranks 64, 64": {"shared_rank": 64, "private_rank": 64},
        "width 64": {"hidden_size": 64, "shared_rank": 24, "private_rank": 16},
        "1 level": {"num_levels": 1},
        "2 levels": {"num_levels": 2},
        "4 levels": {"num_levels": 4},
        "5 levels": {"num_levels": 5},
    },
}
"""What differs from the reference configuration in the rows of a table, by table."""


@dataclass(frozen=True)
class Row:
    """A row of a table: what it is called, and its runs, one per seed."""

    label: str
    runs: tuple[Run, ...]


def grid(data: str, modalities: tuple[str, ...]) -> Iterator[Run]:
    """Yields the runs by which learning rates are chosen."""
    for run in _models(data, modalities):
        if run.is_trained:
            yield from (replace(run, lr=lr) for lr in LEARNING_RATES)


def rows(
    data: str, table: str, modalities: tuple[str, ...], results: Path, seeds: tuple[int, ...] = SEEDS
) -> list[Row]:
    """Returns the rows of a table with the chosen learning rates; ``table`` is ``"models"`` or a key of `CONFIGS`."""
    if table == "models":
        firsts = {_label(run): run for run in _models(data, modalities)}
    else:
        full = Run(data, CLCR, SEEDS[0])
        firsts = {"full": full} | {
            label: replace(full, config=tuple(config.items())) for label, config in CONFIGS[table].items()
        }
    return [
        Row(label, tuple(replace(run, seed=seed, lr=learning_rate(run, results)) for seed in _seeds(run, seeds)))
        for label, run in firsts.items()
    ]


def learning_rate(run: Run, results: Path) -> float | None:
    """Returns the learning rate with the best ``valid`` of those done in the grid, for a model's default config."""
    if not run.is_trained:
        return None
    scores = {}
    for lr in LEARNING_RATES:
        done = load(replace(run, seed=SEEDS[0], lr=lr, config=()), results)
        if done is not None:
            scores[lr] = done["valid"]["mae"]
    return min(scores, key=lambda lr: scores[lr]) if scores else LEARNING_RATES[1]


def _models(data: str, modalities: tuple[str, ...]) -> Iterator[Run]:
    for fusion in FUSIONS:
        yield Run(data, fusion, SEEDS[0])
    for modality in modalities:
        yield Run(data, "late-fusion", SEEDS[0], modalities=(modality,))
    for kind in POOLED:
        yield Run(data, kind, SEEDS[0])


def _label(run: Run) -> str:
    if run.modalities is not None:
        return f"{run.modalities[0]} alone"
    return {"svm": "RBF-SVM, pooled features", "ridge": "ridge, pooled features"}.get(run.model, run.model)


def _seeds(run: Run, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Returns one seed for what does not depend on it."""
    return seeds if run.is_trained else seeds[:1]
