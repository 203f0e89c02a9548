"""The tables of the evidence, in Markdown, from the files of the runs; a table without any run is empty."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.evidence.plan import Row
from benchmarks.evidence.runs import load
from benchmarks.evidence.statistics import estimate, holm, paired_p
from benchmarks.reports import markdown_table
from multifuse.recipes.measures.measures import Choice

Result = dict[str, Any]
"""What was measured on a run."""


def score_table(rows: Sequence[Row], reference: str, choice: Choice, results: Path) -> str:
    """Returns scores, and each row's difference from the reference's: paired by seed, with p-values after Holm."""
    done = {row.label: runs for row in rows if (runs := by_seed(row, results))}
    base = done.get(reference, {})
    differences = {
        label: _differences(runs, base, choice) for label, runs in done.items() if label != reference and base
    }
    compared = [label for label, values in differences.items() if len(values) > 1]
    corrected = dict(zip(compared, holm([paired_p(differences[label]) for label in compared])))
    digits, name = _digits(choice), score_name(choice)
    body = []
    for label, runs in done.items():
        scores = [
            estimate([score(choice, run[split]) for run in runs.values()]).text(digits) for split in ("valid", "test")
        ]
        difference = estimate(differences[label]).signed(digits) if differences.get(label) else ""
        p_value = _p_text(corrected[label]) if label in corrected else ""
        body.append([label, _learning_rate(runs), str(len(runs)), *scores, difference, p_value])
    heads = ["model", "learning rate", "seeds", f"valid {name}", f"test {name}", f"test minus {reference}", "p (Holm)"]
    return markdown_table(heads, body)


def direction(choice: Choice, reference: str) -> str:
    """Returns the sentence that says what the sign of a difference means."""
    better, positive = ("More", "better") if choice.greater_is_better else ("Less", "worse")
    return f"{better} {score_name(choice)} is better: a positive difference is {positive} than {reference}."


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def grid_table(rows: Sequence[Row], choice: Choice, results: Path) -> str:
    """Returns the valid score of every model at every learning rate: the mean over the seeds that choose."""

    def score(row: Row, rate: float) -> str:
        done = [load(run, results) for run in row.runs if run.lr == rate]
        scores = [result["valid"][choice.metric] for result in done if result is not None]
        return _text(choice, {choice.metric: fmean(scores)}) if scores and len(scores) == len(done) else ""

    rates = sorted({run.lr for row in rows for run in row.runs if run.lr is not None})
    body = [[row.label, *(score(row, rate) for rate in rates)] for row in rows]
    body = [cells for cells in body if any(cells[1:])]
    return markdown_table(["model", *(f"{rate:g}" for rate in rates)], body)


def corruption_table(rows: Sequence[Row], choice: Choice, results: Path) -> str:
    """Returns how much worse the test score is with corrupted input and missing modalities than with clean input."""
    losses = {row.label: [_losses(run, choice) for run in by_seed(row, results).values()] for row in rows}
    columns = list(dict.fromkeys(column for runs in losses.values() for run in runs for column in run))
    body = []
    for label, runs in losses.items():
        known = [[run[column] for run in runs if column in run] for column in columns]
        cells = [estimate(values).text(_digits(choice)) if values else "" for values in known]
        if any(cells):
            body.append([label, *cells])
    return markdown_table(["model", *columns], body)


def budget_table(rows: Sequence[Row], choice: Choice, results: Path) -> str:
    """Returns participation, the shares of tokens that are active, and the score: means over levels and modalities."""
    columns = {
        "mean alpha": ("activation", "participation"),
        "active tokens": ("activation", "active"),
        "active of the planted tokens": ("recall", "recall"),
        "active of the others": ("recall", "active_others"),
    }
    body = []
    for row in rows:
        runs = list(by_seed(row, results).values())
        cells = [
            _estimated([_mean(run[table], column) for run in runs if run.get(table)])
            for table, column in columns.values()
        ]
        if runs:
            test = estimate([score(choice, run["test"]) for run in runs])
            body.append([row.label, *cells, test.text(_digits(choice))])
    return markdown_table(["budget", *columns, f"test {score_name(choice)}"], body)


def probe_table(row: Row, results: Path) -> str:
    """Returns the mean R^2 of linear probes of CLCR's streams, for every planted factor."""
    entries = [entry for run in by_seed(row, results).values() for entry in run.get("probes", ())]
    factors = {entry["factor"]: "shared" if entry["shared"] else "private" for entry in entries}
    body = []
    for stream in dict.fromkeys(entry["stream"] for entry in entries):
        of_stream = [entry for entry in entries if entry["stream"] == stream]
        scores = [np.mean([entry["r2"] for entry in of_stream if entry["factor"] == factor]) for factor in factors]
        body.append([stream, *(f"{value:.2f}" for value in scores)])
    return markdown_table(["stream", *(f"{name} ({kind})" for name, kind in factors.items())], body)


def weights_table(row: Row, choice: Choice, results: Path) -> str:
    """Returns by epoch, on ``valid``, the mean entropy of CLCR's weights and the score."""
    runs = [run["epochs"] for run in by_seed(row, results).values()]
    if not runs:
        return ""
    count = min(len(epochs) for epochs in runs)
    shown = sorted({0, 1, 2, 4, 7, 11, count - 1} & set(range(count)))

    def cells(values: Callable[[Mapping[str, float]], float], digits: int) -> list[str]:
        return [f"{np.mean([values(epochs[epoch]) for epochs in runs]):.{digits}f}" for epoch in shown]

    body = [
        ["entropy of omega", *cells(lambda entry: entry["level_entropy"], 2)],
        ["entropy of beta", *cells(lambda entry: entry["modality_entropy"], 2)],
        [f"valid {score_name(choice)}", *cells(lambda entry: score(choice, entry), _digits(choice))],
    ]
    return markdown_table(["epoch", *(str(epoch + 1) for epoch in shown)], body)


def by_seed(row: Row, results: Path) -> dict[int, Result]:
    """Returns what was measured on the runs of a row that have been done."""
    loaded = {run.seed: load(run, results) for run in row.runs}
    return {seed: result for seed, result in loaded.items() if result is not None}


def score(choice: Choice, measures: Mapping[str, float]) -> float:
    """Returns the score out of a split's measures, in per cent if it is a share."""
    return measures[choice.metric] * (100 if choice.of(choice.metric).percent else 1)


def score_name(choice: Choice) -> str:
    """Returns the name of the score, with its unit, for the middle of a sentence."""
    name = choice.label if choice.label.isupper() else choice.label.lower()
    return f"{name} (%)" if choice.of(choice.metric).percent else name


def _digits(choice: Choice) -> int:
    return 1 if choice.of(choice.metric).percent else 3


def _text(choice: Choice, measures: Mapping[str, float]) -> str:
    return f"{score(choice, measures):.{_digits(choice)}f}"


def _learning_rate(runs: Mapping[int, Result]) -> str:
    lr = next(iter(runs.values()))["run"]["lr"]
    return "" if lr is None else f"{lr:g}"


def _differences(runs: Mapping[int, Result], reference: Mapping[int, Result], choice: Choice) -> list[float]:
    """Returns test scores minus the reference's, by seed; those of a model without seeds minus each of them."""
    scores = {seed: score(choice, run["test"]) for seed, run in runs.items()}
    if not _learning_rate(runs):
        scores = dict.fromkeys(reference, *scores.values())
    return [scores[seed] - score(choice, run["test"]) for seed, run in reference.items() if seed in scores]


def _losses(run: Result, choice: Choice) -> dict[str, float]:
    """Returns how much worse the test score is than on clean input: by corruption, and without each modality."""
    sign = -1 if choice.greater_is_better else 1

    def loss(entry: Mapping[str, Any]) -> float:
        return sign * (score(choice, entry) - score(choice, run["test"]))

    subsets = run.get("subsets", ())
    all_but_one = max((len(subset["modalities"]) for subset in subsets), default=0) - 1
    corrupted = {
        f"{entry['kind']} {entry['level']:g}": loss(entry) for entry in run.get("corruption", ()) if entry["level"]
    }
    fewer = {
        f"only {' + '.join(subset['modalities'])}": loss(subset)
        for subset in subsets
        if len(subset["modalities"]) == all_but_one
    }
    return corrupted | fewer


def _mean(entries: Iterable[Mapping[str, Any]], column: str) -> float:
    return float(np.mean([entry[column] for entry in entries]))


def _estimated(values: Sequence[float]) -> str:
    return estimate(values).text(2) if values else ""
