"""Compares CLCR on real CMU-MOSI with only its text encoder, over several seeds.

    python -m benchmarks.mosi --data FILE --text-encoder NAME_OR_FOLDER --results FOLDER   # does the missing runs
    python -m benchmarks.mosi --results FOLDER --summary                                     # prints the tables

Every run writes one JSON file with its measures and its test predictions. A folder may hold those of several feature
files and encoders of different names; other data under a name that it holds are refused. The summary gives the mean and
the standard deviation over seeds, and the gain of fusion, averaged over seeds, with a 95 % bootstrap interval over test
utterances.
"""

import argparse
import glob
import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import fingerprints
from benchmarks.intervals import mean_and_interval
from benchmarks.machine import machine
from multifuse.recipes.data.features.mmsa import read_mmsa
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob

MODELS: tuple[Literal["text", "clcr"], ...] = ("text", "clcr")
MEASURES = ("mae", "corr", "acc7", "acc5", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0")


def measure(
    data: Path, encoder: str, model: Literal["text", "clcr"], seed: int, results: Path, made_with: Mapping[str, Any]
) -> None:
    """Trains and scores one model, unless its result file exists, which says what it was ``made_with``."""
    path = results / f"{_prefix(data, encoder)}.{model}.{seed}.json"
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        result = run(SentimentJob(output=output, data=data, text_encoder=encoder, model=model, seed=seed))
        metrics = json.loads((output / "metrics.json").read_text())
    metrics["machine"] = machine()
    metrics["test_predictions"] = [round(float(value), 4) for value in result.predictions]
    metrics["test_labels"] = [round(float(value), 4) for value in read_mmsa(data).test.labels]
    fingerprints.write_result(path, metrics | made_with)


def _prefix(data: Path, encoder: str) -> str:
    return f"{data.stem}.{Path(encoder).name}"


def check(data: Path, encoder: str, results: Path, made_with: Mapping[str, Any]) -> None:
    """Checks that the result files of these names were made with these data and this encoder.

    Raises:
        ResultsError: they were not, or do not say so.
    """
    for model in MODELS:
        pattern = glob.escape(f"{_prefix(data, encoder)}.{model}.") + "[0-9]*.json"
        fingerprints.check(sorted(results.glob(pattern)), made_with)


def summary(results: Path) -> str:
    """Returns the tables in Markdown.

    Raises:
        ResultsError: there are no results, or those of a table were made with different data or encoders.
    """
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    files: dict[tuple[str, str], list[Path]] = {}
    for path in fingerprints.result_files(results):
        entry = json.loads(path.read_text())
        key = (entry["data"], entry["text_encoder"])
        groups.setdefault(key, {}).setdefault(entry["model"], []).append(entry)
        files.setdefault(key, []).append(path)
    for (data, encoder), paths in files.items():
        fingerprints.check_same(paths, ["fingerprint", "encoder_fingerprint"], f"{encoder} on {data}")
    lines = []
    for (data, encoder), models in groups.items():
        lines += [f"### {encoder} on {data}", "", "| model | runs | " + " | ".join(MEASURES) + " | minutes |"]
        lines.append("|---" * (len(MEASURES) + 3) + "|")
        for model in MODELS:
            if model in models:
                lines.append(_row(model, models[model]))
        paired = sorted(
            {run["seed"] for run in models.get("text", [])} & {run["seed"] for run in models.get("clcr", [])}
        )
        if paired:
            lines += ["", _gain({m: [run for run in models[m] if run["seed"] in paired] for m in MODELS}, paired)]
        lines.append("")
    return "\n".join(lines)


def _row(model: str, runs: list[dict[str, Any]]) -> str:
    cells = []
    for name in MEASURES:
        values = np.array([run["test"][name] for run in runs]) * (1 if name in ("mae", "corr") else 100)
        digits = 3 if name in ("mae", "corr") else 1
        spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{values.mean():.{digits}f}{spread}")
    seconds = [run["seconds"] for run in runs]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return f"| {model} | {seeds} | {' | '.join(cells)} | {max(seconds) / 60:.1f} at most |"


def _gain(models: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    """Returns the gain of CLCR over its text encoder; positive is better."""
    labels = np.array(models["text"][0]["test_labels"])
    predictions = {m: np.array([run["test_predictions"] for run in models[m]]) for m in MODELS}
    errors = {m: np.abs(predictions[m] - labels).mean(0) for m in MODELS}
    nonzero = labels != 0
    hits = {m: ((predictions[m] > 0) == (labels > 0)).mean(0)[nonzero] for m in MODELS}
    mae = mean_and_interval(errors["text"] - errors["clcr"])
    accuracy = mean_and_interval(100 * (hits["clcr"] - hits["text"]))
    return (
        f"What fusion gains over the text encoder alone, {len(seeds)} paired seed{'s' * (len(seeds) > 1)}: "
        f"MAE lower by {mae[0]:+.4f} "
        f"(95 % interval {mae[1]:+.4f} to {mae[2]:+.4f}), Acc-2 non0 higher by {accuracy[0]:+.2f} points "
        f"({accuracy[1]:+.2f} to {accuracy[2]:+.2f})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MMSA feature file")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1111, 1112, 1113, 1114])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--summary", action="store_true", help="only print the tables")
    args = parser.parse_args()
    given = [args.data is not None, args.text_encoder is not None]
    if not all(given) and (any(given) or not args.summary):
        parser.error("--data and --text-encoder must be given together, and are required without --summary")
    try:
        if args.data is not None:
            made_with = fingerprints.of_features(args.data, args.text_encoder)
            check(args.data, args.text_encoder, args.results, made_with)
        for seed, model in () if args.summary else itertools.product(args.seeds, args.models):
            measure(args.data, args.text_encoder, model, seed, args.results, made_with)
        print(summary(args.results))
    except fingerprints.ResultsError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
