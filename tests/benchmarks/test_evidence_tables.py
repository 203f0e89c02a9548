"""The tables of the evidence, worked by hand from result files, where less and where more is better."""

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence.figure import FIGURE, draw
from benchmarks.evidence.plan import CLCR, Row, Section
from benchmarks.evidence.report import report
from benchmarks.evidence.runs import Run
from benchmarks.evidence.tables import (
    budget_table,
    corruption_table,
    direction,
    grid_table,
    probe_table,
    score_table,
    weights_table,
)
from multifuse.recipes.measures import classification, sentiment

MAE, ACCURACY = sentiment.CHOICE, classification.CHOICE


def row(results: Path, label: str, tests: list[float], lr: float | None = 0.001, **more: Any) -> Row:
    """Writes a run per score on test, with seeds from 1 on; the score on valid is 0.5."""
    metric = "accuracy" if more.pop("clips", False) else "mae"
    runs = tuple(Run("tiny", label, seed, lr) for seed in range(1, len(tests) + 1))
    for run, score in zip(runs, tests, strict=True):
        run.path(results).parent.mkdir(exist_ok=True)
        content = {"run": {"lr": lr}, "valid": {metric: 0.5}, "test": {metric: score}, **more}
        run.path(results).write_text(json.dumps(content))
    return Row(label, runs)


def cells(table: str) -> list[list[str]]:
    """Returns a table's cells, without the rule under the heads."""
    lines = [line.strip("|\n").split("|") for line in table.splitlines()]
    return [[cell.strip() for cell in line] for line in [lines[0], *lines[2:]]]


def test_scores_are_compared_by_seed(tmp_path: Path) -> None:
    rows = [
        row(tmp_path, CLCR, [0.5, 0.6, 0.7]),
        row(tmp_path, "late-fusion", [0.6, 0.6, 0.9], lr=0.002),
        row(tmp_path, "mult", [0.6, 0.7, 0.8]),
        row(tmp_path, "svm", [0.8], lr=None),
        Row("not run", (Run("tiny", "low-rank", 1, 0.001),)),
    ]
    heads, *body = cells(score_table(rows, CLCR, MAE, tmp_path))
    assert heads == ["model", "learning rate", "seeds", "valid MAE", "test MAE", "test minus clcr", "p (Holm)"]
    # The interval of clcr: 4.303 times a deviation of 0.1 over the root of 3 is 0.248.
    assert body[0] == [CLCR, "0.001", "3", "0.500 ± 0.000", "0.600 ± 0.248", "", ""]
    # Differences 0.1, 0.0, 0.2: mean 0.1, deviation 0.1, t of 1.732 has p = 0.225.
    assert body[1] == [
        "late-fusion",
        "0.002",
        "3",
        "0.500 ± 0.000",
        "0.700 ± 0.430",
        "+0.100 (-0.148 to +0.348)",
        "0.225",
    ]
    assert body[2][:2] == ["mult", "0.001"]
    assert body[2][5] == "+0.100 (+0.100 to +0.100)"
    # The model without seeds is compared with each seed: 0.3, 0.2, 0.1, t of 3.464, p = 0.0742 times two that are left.
    assert body[3] == ["svm", "", "1", "0.500", "0.800", "+0.200 (-0.048 to +0.448)", "0.148"]
    assert len(body) == 4


def test_only_common_seeds_are_compared_and_one_has_no_p_value(tmp_path: Path) -> None:
    rows = [row(tmp_path, CLCR, [0.5]), row(tmp_path, "mult", [0.7, 9.0])]
    assert cells(score_table(rows, CLCR, MAE, tmp_path))[2][5:] == ["+0.200", ""]


def test_accuracies_are_in_per_cent_and_more_is_better(tmp_path: Path) -> None:
    rows = [row(tmp_path, CLCR, [0.9], clips=True), row(tmp_path, "mult", [0.85], clips=True)]
    heads, first, second = cells(score_table(rows, CLCR, ACCURACY, tmp_path))
    assert heads[3:5] == ["valid accuracy (%)", "test accuracy (%)"]
    assert (first[4], second[4:6]) == ("90.0", ["85.0", "-5.0"])
    assert direction(ACCURACY, CLCR) == "More accuracy (%) is better: a positive difference is better than clcr."
    assert direction(MAE, CLCR) == "Less MAE is better: a positive difference is worse than clcr."


def test_losses_by_corruption_and_missing_modalities_are_paired_with_the_clean_score(tmp_path: Path) -> None:
    corruption = [{"kind": "noise", "level": level, "mae": mae} for level, mae in ((0.0, 0.5), (2.0, 0.8))]
    subsets = [
        {"modalities": names, "mae": mae}
        for names, mae in ((["text", "audio"], 0.5), (["text"], 0.6), (["audio"], 1.0))
    ]
    rows = [
        row(tmp_path, "text alone", [0.6], corruption=corruption, subsets=subsets[1:2]),
        row(tmp_path, CLCR, [0.5, 0.4], corruption=corruption, subsets=subsets),
        row(tmp_path, "svm", [0.7], lr=None),
    ]
    assert cells(corruption_table(rows, MAE, tmp_path)) == [
        ["model", "noise 2", "only text", "only audio"],
        ["text alone", "0.200", "", ""],
        [CLCR, "0.350 ± 0.635", "0.150 ± 0.635", "0.550 ± 0.635"],
    ]


def test_a_lower_accuracy_is_a_loss(tmp_path: Path) -> None:
    subsets = [
        {"modalities": names, "accuracy": score}
        for names, score in ((["audio", "vision"], 0.9), (["audio"], 0.7), (["vision"], 0.95))
    ]
    table = corruption_table([row(tmp_path, CLCR, [0.9], clips=True, subsets=subsets)], ACCURACY, tmp_path)
    assert cells(table) == [["model", "only audio", "only vision"], [CLCR, "20.0", "-5.0"]]


def test_budgets_are_averaged_over_levels_and_modalities(tmp_path: Path) -> None:
    activation = [{"participation": value, "active": value / 2} for value in (0.2, 0.6)]
    recall = [{"recall": value, "active_others": 0.1} for value in (0.5, 1.0)]
    rows = [
        row(tmp_path, "full", [0.5], activation=activation, recall=recall),
        row(tmp_path, "no truth", [0.4], activation=activation),
    ]
    assert cells(budget_table(rows, MAE, tmp_path))[1:] == [
        ["full", "0.40", "0.20", "0.75", "0.10", "0.500"],
        ["no truth", "0.40", "0.20", "", "", "0.400"],
    ]


def test_probes_are_averaged_over_seeds(tmp_path: Path) -> None:
    def probe(stream: str, factor: str, shared: bool, r2: float) -> dict[str, Any]:
        return {"stream": stream, "factor": factor, "shared": shared, "r2": r2}

    entries = [probe("private, text", "word", False, 0.25), probe("private, text", "rhythm", True, 0.5)]
    found = row(tmp_path, CLCR, [0.5, 0.5], probes=entries)
    path = found.runs[1].path(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"probes": [{**entry, "r2": 0.75} for entry in entries]}))
    assert cells(probe_table(found, tmp_path)) == [
        ["stream", "word (private)", "rhythm (shared)"],
        ["private, text", "0.50", "0.62"],
    ]


def epochs(*maes: float) -> list[dict[str, float]]:
    gates = {"private_gate_text": 0.5, "private_gate_audio": 0.25}
    return [{"mae": mae, "level_entropy": mae / 2, "modality_entropy": 1.0, **gates} for mae in maes]


def test_weights_are_shown_for_the_epochs_that_all_runs_have(tmp_path: Path) -> None:
    found = row(tmp_path, CLCR, [0.5], epochs=epochs(0.9, 0.8, 0.7, 0.6))
    assert cells(weights_table(found, MAE, tmp_path)) == [
        ["epoch", "1", "2", "3", "4"],
        ["entropy of omega", "0.45", "0.40", "0.35", "0.30"],
        ["entropy of beta", "1.00", "1.00", "1.00", "1.00"],
        ["valid MAE", "0.900", "0.800", "0.700", "0.600"],
    ]


def test_the_grid_shows_what_has_been_tried(tmp_path: Path) -> None:
    found = row(tmp_path, CLCR, [0.5])
    tried = Row(CLCR, (*found.runs, Run("tiny", CLCR, 1, 0.002)))
    assert cells(grid_table([tried], MAE, tmp_path)) == [["model", "0.001", "0.002"], [CLCR, "0.500", ""]]


def test_the_learning_rates_have_the_mean_over_the_seeds_that_choose(tmp_path: Path) -> None:
    two = row(tmp_path, CLCR, [0.5, 0.7])
    path = two.runs[1].path(tmp_path)
    path.write_text(path.read_text().replace('"valid": {"mae": 0.5', '"valid": {"mae": 0.7'))
    assert cells(grid_table([two], MAE, tmp_path)) == [["model", "0.001"], [CLCR, "0.600"]]


def test_the_report_shows_only_tables_that_have_runs(tmp_path: Path) -> None:
    section = Section("tiny", ("text", "audio"), seeds=(1, 2), learning_rates=(0.001,))
    empty = Section("empty", ("text",))
    assert report([section, empty], tmp_path) == ""
    assert draw([section, empty], tmp_path) is None
    row(tmp_path, CLCR, [0.5, 0.7], epochs=epochs(0.9, 0.8))
    text = report([section, empty], tmp_path)
    assert text.startswith("## tiny\n")
    assert [line.split(".")[0] for line in text.splitlines() if line[:1] not in ("|", "")] == [
        "## tiny",
        "Models, mean ± half the 95 % interval over the seeds",
        "Learning rates by valid MAE, seed 1:",
        "Weights of CLCR after each epoch, on valid:",
    ]
    assert draw([section, empty], tmp_path) == tmp_path / FIGURE
    assert (tmp_path / FIGURE).read_bytes().startswith(b"\x89PNG")
