"""Compares CLCR on real spoken and written digits with the same model on a single modality, over several seeds.

    python -m benchmarks.av_digits --data DIR --output FOLDER    # does the missing runs and prints the table
    python -m benchmarks.av_digits --output FOLDER --summary      # prints the table
    python -m benchmarks.av_digits --data DIR --output FOLDER --hold-out theo george   # to compare recipes

Every run writes one JSON file with its measures and its test predictions; a folder holds those of one data set. The
epoch is chosen on the validation split. With --hold-out, the runs are tested on speakers of the training split; the
test split is not used.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fingerprints
from benchmarks.evidence.clip_set import DIGITS, DigitSet, prepared_digits
from benchmarks.intervals import mean_and_interval
from benchmarks.machine import machine
from multifuse.recipes.jobs.audiovisual import AudioVisualJob, PreparedClips
from multifuse.recipes.jobs.recipe import AV_DIGITS
from multifuse.recipes.jobs.run import run

MODALITIES = {"both": ("audio", "vision"), "audio": ("audio",), "image": ("vision",)}
MEASURES = ("accuracy", "macro_f1", "weighted_f1")


@dataclass(frozen=True)
class HoldOutJob(AudioVisualJob):
    """Leaves some speakers of the training split out of training, and tests on them."""

    held_out: tuple[str, ...] = ()

    def read_given(self) -> PreparedClips | None:
        data = super().read_given()
        assert data is not None
        return without_speakers(data, self.held_out) if self.held_out else data


def without_speakers(data: PreparedClips, held_out: Sequence[str]) -> PreparedClips:
    """Removes speakers from the train and valid splits, and makes their clips in train the test split."""

    def spoken(split: str, by_held_out: bool) -> Any:
        ids = data.splits[split]["id"]
        rows = [row for row, clip_id in enumerate(ids) if (_speaker(clip_id) in held_out) == by_held_out]
        return data.splits[split].select(rows)

    splits = {"train": spoken("train", False), "valid": spoken("valid", False), "test": spoken("train", True)}
    speakers = {_speaker(clip_id) for clip_id in splits["test"]["id"]}
    if unknown := sorted(set(held_out) - speakers):
        raise ValueError(f"--hold-out must name speakers of the training split, got {unknown}")
    return replace(data, splits=splits)


def _speaker(clip_id: str) -> str:
    """Returns the speaker in an id like ``7_theo_12``."""
    return clip_id.split("_")[1]


def measure(digits: DigitSet, name: str, seed: int, output: Path, held_out: tuple[str, ...] = ()) -> None:
    """Trains and scores one model, unless its result file exists."""
    label = "-".join([name, *(("without", *held_out) if held_out else ())])
    path = output / f"{label}.{seed}.json"
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        job = HoldOutJob(
            output=Path(folder) / "run",
            data_set=DIGITS,
            data=digits.prepared,
            modalities=MODALITIES[name],
            audio_backbone="resnet-small",
            vision_backbone="resnet-small",
            default_recipe=AV_DIGITS,
            seed=seed,
            held_out=held_out,
        )
        result = run(job)
        metrics = json.loads((job.output / "metrics.json").read_text())
        data = job.read_given()
    assert data is not None
    metrics["name"], metrics["held_out"] = label, list(held_out)
    metrics["samples"] = {split: len(rows) for split, rows in data.splits.items()}
    metrics["machine"], metrics["fingerprint"] = machine(), digits.fingerprint
    metrics["test_predictions"] = [int(value) for value in result.predictions]
    metrics["test_labels"] = list(data.splits["test"]["label"])
    fingerprints.write_result(path, metrics)


def summary(output: Path) -> str:
    """Returns the table in Markdown, and the gain of fusion over the better of the single modalities.

    Raises:
        ResultsError: there are no results, or they were made with different data.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    paths = fingerprints.result_files(output)
    fingerprints.check_same(paths, ["fingerprint"], str(output))
    for path in paths:
        entry = json.loads(path.read_text())
        runs.setdefault(entry["name"], []).append(entry)
    lines = ["| input | seeds | valid accuracy | " + " | ".join(MEASURES) + " | minutes |"]
    lines.append("|---" * (len(MEASURES) + 4) + "|")
    lines += [_row(name, runs[name]) for name in sorted(runs, key=_order)]
    single = [name for name in ("audio", "image") if name in runs]
    if "both" in runs and single:
        best = max(single, key=lambda name: np.mean([run["test"]["accuracy"] for run in runs[name]]))
        lines += ["", _gain(runs["both"], runs[best], best)]
    return "\n".join(lines)


def _order(name: str) -> tuple[int, str]:
    """Returns the sort key of a row: both inputs first, and runs with held-out speakers last."""
    position = [*MODALITIES].index(name.split("-")[0])
    return position + len(MODALITIES) * ("-" in name), name


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    columns = [[run["valid"]["accuracy"] for run in runs]] + [[run["test"][name] for run in runs] for name in MEASURES]
    cells = []
    for column in columns:
        values = 100 * np.array(column)
        spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        cells.append(f"{values.mean():.1f}{spread}")
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return f"| {name} | {seeds} | {' | '.join(cells)} | {max(run['seconds'] for run in runs) / 60:.1f} at most |"


def _gain(both: list[dict[str, Any]], single: list[dict[str, Any]], name: str) -> str:
    labels = np.array(both[0]["test_labels"])
    hits = [np.mean([np.array(run["test_predictions"]) == labels for run in runs], axis=0) for runs in (both, single)]
    mean, low, high = mean_and_interval(100 * (hits[0] - hits[1]))
    return (
        f"What fusion gains over {name} alone, the better of the two on test: {mean:+.1f} points "
        f"(95 % interval over the test clips {low:+.1f} to {high:+.1f})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data set's folder as distributed")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--prepared",
        type=Path,
        help="folder that keeps the prepared sets, by the content of --data; default: temporary",
    )
    parser.add_argument("--inputs", nargs="+", choices=tuple(MODALITIES), default=list(MODALITIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1111, 1112, 1113])
    parser.add_argument("--hold-out", nargs="+", default=[], help="speakers of the training split to test on")
    parser.add_argument("--summary", action="store_true", help="only print the summary")
    args = parser.parse_args()
    if args.data is None and not args.summary:
        parser.error("--data is required without --summary")
    try:
        with tempfile.TemporaryDirectory() as folder:
            if args.data is not None:
                digits = prepared_digits(args.data, args.prepared or Path(folder))
                fingerprints.check(sorted(args.output.glob("*.json")), {"fingerprint": digits.fingerprint})
            for seed, name in () if args.summary else itertools.product(args.seeds, args.inputs):
                measure(digits, name, seed, args.output, tuple(args.hold_out))
        print(summary(args.output))
    except fingerprints.ResultsError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
