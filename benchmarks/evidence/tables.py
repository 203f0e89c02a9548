"""The tables of the evidence, in Markdown, from the files of the runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.plan import LEARNING_RATES, Row
from benchmarks.evidence.runs import Run, load
from benchmarks.evidence.statistics import Estimate, estimate, holm, paired_p

Results = dict[int, dict[str, Any]]
"""What was measured on the runs of a row, by seed."""


def score_table(rows: Sequence[Row], reference: str, results: Path) -> str:
    """Returns test MAEs, and how much each row's is above the reference's: paired by seed, p-values after Holm."""
    done = {row.label: _done(row.runs, results) for row in rows}
    done = {label: runs for label, runs in done.items() if runs}
    if not done:
        return "No run has been done.\n"
    differences = {label: _differences(runs, done.get(reference, {})) for label, runs in done.items()}
    compared = [label for label in done if label != reference and len(differences[label]) > 1]
    corrected = dict(zip(compared, holm([paired_p(differences[label]) for label in compared])))
    lines = [f"| model | learning rate | seeds | valid MAE | test MAE | above {reference} (95 % interval) | p (Holm) |"]
    lines.append("|---" * 7 + "|")
    for label, runs in done.items():
        cells = [label, _learning_rate(runs), str(len(runs)), _mean(runs, "valid").text(), _mean(runs, "test").text()]
        if label == reference or not differences[label]:
            cells += ["", ""]
        else:
            p_value = f"{corrected[label]:.3f}" if label in corrected else ""
            cells += [estimate(differences[label]).signed(), p_value]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def corruption_table(rows: Sequence[Row], results: Path) -> str:
    """Returns how much the test MAE rises under corruption and with modalities missing, above that on clean input."""
    columns: list[str] = []
    cells: dict[str, list[str]] = {}
    for row in rows:
        runs = [run for run in _done(row.runs, results).values() if "corruption" in run]
        if not runs:
            continue
        rises = [_rises(run) for run in runs]
        columns = columns or list(rises[0])
        if set(columns) <= set(rises[0]):
            cells[row.label] = [estimate([rise[column] for rise in rises]).text() for column in columns]
    lines = [f"| model | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(lines + [f"| {label} | {' | '.join(row)} |" for label, row in cells.items()]) + "\n"


def budget_table(rows: Sequence[Row], results: Path) -> str:
    """Returns participation, active tokens, recall of the planted tokens, and the score."""
    lines = ["| budget | participation | active | planted tokens active | other tokens active | test MAE |"]
    lines.append("|---" * 6 + "|")
    for row in rows:
        runs = list(_done(row.runs, results).values())
        if not runs:
            continue
        cells = [
            _over(runs, "activation", "participation"),
            _over(runs, "activation", "active"),
            _over(runs, "recall", "recall"),
            _over(runs, "recall", "active_others"),
            estimate([run["test"]["mae"] for run in runs]).text(),
        ]
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def probe_table(row: Row, results: Path) -> str:
    """Returns R^2 of linear probes of CLCR's streams, for every planted factor."""
    runs = list(_done(row.runs, results).values())
    runs = [run for run in runs if "probes" in run]
    if not runs:
        return "No run has been done.\n"
    factors = {entry["factor"]: entry["shared"] for entry in runs[0]["probes"]}
    heads = [f"{name} ({'shared' if shared else 'private'})" for name, shared in factors.items()]
    lines = [f"| stream | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for stream in dict.fromkeys(entry["stream"] for entry in runs[0]["probes"]):
        means = [
            np.mean([e["r2"] for run in runs for e in run["probes"] if (e["stream"], e["factor"]) == (stream, factor)])
            for factor in factors
        ]
        lines.append(f"| {stream} | {' | '.join(f'{mean:.2f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def entropy_table(row: Row, results: Path) -> str:
    """Returns the mean entropy of level and modality weights on ``valid`` by epoch, and when the loss began to fall."""
    runs = list(_done(row.runs, results).values())
    if not runs:
        return "No run has been done.\n"
    epochs = min(len(run["epochs"]) for run in runs)
    shown = sorted({0, 1, 2, 4, 7, 11, epochs - 1} & set(range(epochs)))
    lines = [f"| epoch | {' | '.join(str(epoch + 1) for epoch in shown)} |", "|---" * (len(shown) + 1) + "|"]
    names = {"level_entropy": "entropy of omega", "modality_entropy": "entropy of beta", "mae": "valid MAE"}
    for name, label in names.items():
        means = [np.mean([run["epochs"][epoch][name] for run in runs]) for epoch in shown]
        lines.append(f"| {label} | {' | '.join(f'{mean:.2f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def grid_table(runs: Sequence[Run], results: Path) -> str:
    """Returns the valid MAE of every model at every learning rate, of the seed that chooses."""
    lines = [f"| model | {' | '.join(f'{lr:g}' for lr in LEARNING_RATES)} |", "|---" * (len(LEARNING_RATES) + 1) + "|"]
    by_model: dict[str, list[str]] = {}
    for run in runs:
        done = load(run, results)
        label = ".".join([run.model, *(run.modalities or ())])
        by_model.setdefault(label, []).append("" if done is None else f"{done['valid']['mae']:.3f}")
    lines += [f"| {label} | {' | '.join(cells)} |" for label, cells in by_model.items() if any(cells)]
    return "\n".join(lines) + "\n"


def _done(runs: Sequence[Run], results: Path) -> Results:
    loaded = {run.seed: load(run, results) for run in runs}
    return {seed: result for seed, result in loaded.items() if result is not None}


def _mean(runs: Results, split: str) -> Estimate:
    return estimate([run[split]["mae"] for run in runs.values()])


def _learning_rate(runs: Results) -> str:
    lr = next(iter(runs.values()))["run"]["lr"]
    return "" if lr is None else f"{lr:g}"


def _differences(runs: Results, reference: Results) -> list[float]:
    """Returns by how much the test MAE is above the reference's, by seed; of a model without seeds, against each."""
    if len(runs) == 1 and not next(iter(runs.values()))["run"]["lr"]:
        only = next(iter(runs.values()))["test"]["mae"]
        return [only - other["test"]["mae"] for other in reference.values()]
    return [runs[seed]["test"]["mae"] - reference[seed]["test"]["mae"] for seed in runs if seed in reference]


def _rises(run: dict[str, Any]) -> dict[str, float]:
    clean = run["test"]["mae"]
    rises = {
        f"{entry['kind']} {entry['level']:g}": entry["mae"] - clean for entry in run["corruption"] if entry["level"]
    }
    everything = max(len(subset["modalities"]) for subset in run["subsets"])
    for subset in run["subsets"]:
        if len(subset["modalities"]) == everything - 1:
            rises[f"only {' + '.join(subset['modalities'])}"] = subset["mae"] - clean
    return rises


def _over(runs: Sequence[dict[str, Any]], table: str, column: str) -> str:
    values = [float(np.mean([entry[column] for entry in run[table]])) for run in runs if run.get(table)]
    return estimate(values).text(2) if values else ""
