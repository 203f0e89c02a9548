"""Measures CLCR on real spoken and written digits against the same model given one modality, over several seeds.

    python -m benchmarks.av_digits --data DIR --output FOLDER    # runs what is not there yet, and prints the table
    python -m benchmarks.av_digits --output FOLDER --summary      # prints the table

Every run writes one JSON file with its measures and its test predictions. The epoch is chosen on the validation split.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.intervals import mean_and_interval
from multifuse.data import shards
from multifuse.data.benchmarks import BENCHMARKS
from multifuse.data.preparation import Preparation, prepare
from multifuse.files import whole
from multifuse.training.audiovisual_job import AudioVisualJob
from multifuse.training.job import run
from multifuse.training.recipes import AV_DIGITS

MODALITIES = {"both": ("audio", "vision"), "audio": ("audio",), "image": ("vision",)}
MEASURES = ("accuracy", "macro_f1", "weighted_f1")


def measure(prepared: Path, name: str, seed: int, output: Path) -> None:
    """One run, unless its result is there."""
    path = output / f"{name}.{seed}.json"
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        job = AudioVisualJob(
            output=Path(folder) / "run",
            benchmark=BENCHMARKS["av_digits"],
            data=prepared,
            modalities=MODALITIES[name],
            audio_backbone="resnet-small",
            vision_backbone="resnet-small",
            default_recipe=AV_DIGITS,
            seed=seed,
        )
        result = run(job)
        metrics = json.loads((job.output / "metrics.json").read_text())
    metrics["name"] = name
    metrics["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    metrics["test_predictions"] = [int(value) for value in result.predictions]
    metrics["test_labels"] = list(shards.read_split(prepared, "test")["label"])
    output.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_text(json.dumps(metrics) + "\n")


def summary(output: Path) -> str:
    """The table, in Markdown, and what fusion gains over the better of the single modalities."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(output.glob("*.json")):
        entry = json.loads(path.read_text())
        runs.setdefault(entry["name"], []).append(entry)
    lines = ["| input | seeds | valid accuracy | " + " | ".join(MEASURES) + " | minutes |"]
    lines.append("|---" * (len(MEASURES) + 4) + "|")
    lines += [_row(name, runs[name]) for name in MODALITIES if name in runs]
    single = [name for name in ("audio", "image") if name in runs]
    if "both" in runs and single:
        best = max(single, key=lambda name: np.mean([run["test"]["accuracy"] for run in runs[name]]))
        lines += ["", _gain(runs["both"], runs[best], best)]
    return "\n".join(lines)


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    columns = [[run["valid"]["accuracy"] for run in runs]] + [[run["test"][m] for run in runs] for m in MEASURES]
    cells = []
    for column in columns:
        values = 100 * np.array(column)
        spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        cells.append(f"{values.mean():.1f}{spread}")
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return f"| {name} | {seeds} | {' | '.join(cells)} | {max(run['seconds'] for run in runs) / 60:.1f} at most |"


def _gain(both: list[dict[str, Any]], single: list[dict[str, Any]], name: str) -> str:
    labels = np.array(both[0]["test_labels"])
    hits = [np.mean([np.array(r["test_predictions"]) == labels for r in runs], axis=0) for runs in (both, single)]
    mean, low, high = mean_and_interval(100 * (hits[0] - hits[1]))
    return (
        f"What fusion gains over {name} alone, the better of the two on test: {mean:+.1f} points "
        f"(95 % interval over the test clips {low:+.1f} to {high:+.1f})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data set as distributed")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, help="where the set is prepared, or was; default: for this call alone")
    parser.add_argument("--inputs", nargs="+", choices=tuple(MODALITIES), default=list(MODALITIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1111, 1112, 1113])
    parser.add_argument("--summary", action="store_true", help="run nothing")
    given = parser.parse_args()
    if not given.summary:
        if given.data is None:
            parser.error("--data is needed, or --summary")
        benchmark = BENCHMARKS["av_digits"]
        with tempfile.TemporaryDirectory() as folder:
            prepared = given.prepared or Path(folder) / "prepared"
            prepare(Preparation(benchmark, given.data, given.data, prepared, benchmark.options))
            for seed in given.seeds:
                for name in given.inputs:
                    measure(prepared, name, seed, given.output)
    print(summary(given.output))


if __name__ == "__main__":
    main()
