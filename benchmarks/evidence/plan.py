"""Which runs each table needs. Learning rates are chosen first, from one grid for all, by ``valid``."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.evidence.runs import Run, load
from multifuse.recipes.measures import classification, sentiment
from multifuse.recipes.measures.measures import Choice

SEEDS = (1, 2, 3, 4, 5)
CLCR = "clcr"
FUSIONS = (CLCR, "late-fusion", "cross-attention", "concatenation", "mult", "low-rank", "shared-private")
POOLED = {"svm": "RBF-SVM, pooled features", "ridge": "ridge, pooled features"}
MODELS, FULL = "models", "full"
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "ablation": {
        "no InterCAD": {"use_inter_cad": False},
        "no IntraCED": {"use_intra_ced": False},
        "no hierarchy": {"use_hierarchy": False},
        "no regularisers": {"lambda_intra": 0.0, "lambda_inter": 0.0},
        "full mix": {"shuffle_levels": True},
        "exchange from random weights": {"init_exchange": "xavier"},
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
"""What differs from the reference configuration in the rows of a table, by table; its first row is `FULL`."""
RATE_LIMITS = (2.5e-4, 1.6e-2)
"""The lowest and the highest learning rate that is tried."""


@dataclass(frozen=True)
class Section:
    """The tables of one data set, and what is run for them."""

    data: str
    modalities: tuple[str, ...]
    tables: tuple[str, ...] = (MODELS,)
    """`MODELS`, then any keys of `CONFIGS`."""
    fusions: tuple[str, ...] = FUSIONS
    """CLCR first."""
    seeds: tuple[int, ...] = SEEDS
    close: tuple[str, ...] = ()
    """The fusions, CLCR first, that `seeds` cannot tell apart."""
    close_seeds: tuple[int, ...] = ()
    """The seeds that these have in addition."""
    configs_are_close: bool = False
    """Whether the rows of the tables of `CONFIGS` have these seeds too."""
    choosing_seeds: int = 1
    """How many of the seeds, from the first on, choose the learning rates."""
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    """Half, once and twice the recipe's; the grid goes on where the best of them is the first or the last."""
    choice: Choice = sentiment.CHOICE
    """Its metric is the score by which epochs and learning rates are chosen, and models compared."""
    epochs: int | None = None


SECTIONS = (
    Section(
        "planted-default",
        ("text", "vision", "audio"),
        (MODELS, *CONFIGS),
        close=(CLCR, "cross-attention", "late-fusion"),
        close_seeds=(6, 7, 8, 9, 10),
        epochs=10,
    ),
    Section(
        "planted-levels",
        ("text", "vision", "audio"),
        (MODELS, "ablation"),
        choosing_seeds=2,  # at the higher rates, some seeds fail here
        close=(CLCR, "cross-attention", "late-fusion", "low-rank"),
        close_seeds=(6, 7, 8, 9, 10),
        configs_are_close=True,
        epochs=10,
    ),
    Section(
        "planted-cues",
        ("text", "vision", "audio"),
        fusions=(CLCR, "cross-attention"),
        seeds=tuple(range(1, 11)),
        choosing_seeds=2,  # at the higher rates, some seeds fail here
    ),
    Section("mosi", ("text", "audio"), (MODELS, "ablation")),
    Section(
        "av_digits",
        ("audio", "vision"),
        fusions=(CLCR, "late-fusion", "cross-attention", "concatenation"),
        seeds=(1, 2, 3),
        choice=classification.CHOICE,
    ),
)


@dataclass(frozen=True)
class Row:
    """A row of a table: what it is called, and its runs, one per seed."""

    label: str
    runs: tuple[Run, ...]


def grid(section: Section, results: Path) -> list[Row]:
    """Returns the runs by which learning rates are chosen: for each trained model, those of its grid so far."""
    return [
        Row(label, tuple(_choosing(section, run, _tried(section, run, results)[0])))
        for label, run in _models(section).items()
        if run.is_trained
    ]


def rows(section: Section, table: str, results: Path) -> list[Row]:
    """Returns the rows of a table; a model whose learning rate has not been chosen yet has none."""
    if table == MODELS:
        runs = _models(section)
    else:
        full = _run(section, CLCR)
        configs = {label: replace(full, config=tuple(config.items())) for label, config in CONFIGS[table].items()}
        runs = {FULL: full, **configs}
    seeded = {label: tuple(_seeded(section, run, results)) for label, run in runs.items()}
    return [Row(label, of_row) for label, of_row in seeded.items() if of_row]


def learning_rate(section: Section, run: Run, results: Path) -> float | None:
    """Returns the learning rate whose mean ``valid`` score is the best of the grid, the lowest of equals.

    Other configurations of CLCR have that of the reference configuration. ``None`` while a run of the grid is missing.
    """
    return _tried(section, run, results)[1]


def _tried(section: Section, run: Run, results: Path) -> tuple[list[float], float | None]:
    """Returns a model's grid, and the best rate if all of it has been done.

    A grid whose best rate is its first or last one goes on in that direction, up to `RATE_LIMITS`: a model may need
    other rates than the one for which the grid was made.
    """
    rates = sorted(section.learning_rates)
    best = max if section.choice.greater_is_better else min
    while True:
        done = {lr: [load(one, results) for one in _choosing(section, run, [lr])] for lr in rates}
        scores = {
            lr: fmean(result["valid"][section.choice.metric] for result in of_rate if result is not None)
            for lr, of_rate in done.items()
            if None not in of_rate
        }
        if len(scores) < len(rates):
            return rates, None
        chosen = best(rates, key=lambda lr: scores[lr])
        if len(rates) > 1 and chosen == rates[0] and chosen / 2 >= RATE_LIMITS[0]:
            rates = [chosen / 2, *rates]
        elif len(rates) > 1 and chosen == rates[-1] and chosen * 2 <= RATE_LIMITS[1]:
            rates = [*rates, chosen * 2]
        else:
            return rates, chosen


def _choosing(section: Section, run: Run, rates: Sequence[float]) -> Iterator[Run]:
    """Yields the runs of a model that choose among rates."""
    for lr in rates:
        for seed in section.seeds[: section.choosing_seeds]:
            yield replace(run, seed=seed, lr=lr, config=())


def missing(section: Section, results: Path) -> Iterator[list[Run]]:
    """Yields the runs that have not been done: those that choose the learning rates, then those of each table.

    Each list must be done before the next one is asked for, which depends on its results.
    """
    while of_grid := _undone((run for row in grid(section, results) for run in row.runs), results):
        yield of_grid
        if len(_undone(of_grid, results)) == len(of_grid):  # all that was left has failed
            break
    for table in section.tables:
        in_table = [row.runs for row in rows(section, table, results)]
        by_seed = (
            runs[index] for index in range(max(map(len, in_table), default=0)) for runs in in_table if index < len(runs)
        )
        yield _undone(by_seed, results)


def _undone(runs: Iterable[Run], results: Path) -> list[Run]:
    return [run for run in dict.fromkeys(runs) if not run.path(results).exists()]


def _run(section: Section, model: str, modalities: tuple[str, ...] | None = None) -> Run:
    epochs = None if model in POOLED else section.epochs
    return Run(section.data, model, section.seeds[0], modalities=modalities, epochs=epochs)


def _models(section: Section) -> dict[str, Run]:
    return {
        **{fusion: _run(section, fusion) for fusion in section.fusions},
        **{f"{name} alone": _run(section, "late-fusion", (name,)) for name in section.modalities},
        **{label: _run(section, kind) for kind, label in POOLED.items()},
    }


def _seeded(section: Section, run: Run, results: Path) -> Iterator[Run]:
    """Yields a row's runs: one per seed, or a single one of a model that does not depend on it."""
    if not run.is_trained:
        yield replace(run, seed=section.seeds[0])
    elif (lr := learning_rate(section, run, results)) is not None:
        is_fusion = run == _run(section, run.model) and run.model in section.close
        is_close = is_fusion or (section.configs_are_close and bool(run.config))
        for seed in (*section.seeds, *(section.close_seeds if is_close else ())):
            yield replace(run, seed=seed, lr=lr)
