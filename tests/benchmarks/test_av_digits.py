"""The digits' measurement: its table and its gain, from result files worked by hand."""

import json
from pathlib import Path

from benchmarks.av_digits import MEASURES, summary

LABELS = [0, 1, 2, 3]


def write_run(folder: Path, name: str, seed: int, predictions: list[int]) -> None:
    accuracy = sum(p == t for p, t in zip(predictions, LABELS, strict=True)) / 4
    run = {
        "name": name,
        "seed": seed,
        "seconds": 90.0,
        "valid": {"accuracy": 0.5},
        "test": dict.fromkeys(MEASURES, accuracy),
        "test_predictions": predictions,
        "test_labels": LABELS,
    }
    (folder / f"{name}.{seed}.json").write_text(json.dumps(run))


def test_the_summary_gives_means_spreads_and_the_gain_over_the_better_modality(tmp_path: Path) -> None:
    write_run(tmp_path, "both", 1, [0, 1, 2, 3])
    write_run(tmp_path, "both", 2, [0, 1, 2, 0])
    write_run(tmp_path, "audio", 1, [0, 0, 0, 0])
    write_run(tmp_path, "image", 1, [0, 1, 0, 0])
    table = summary(tmp_path)
    assert "| both | 1, 2 | 50.0 ± 0.0 | 87.5 ± 17.7 |" in table
    assert "| image | 1 | 50.0 | 50.0 |" in table
    assert "over image alone, the better of the two on test: +37.5 points" in table


def test_one_input_alone_has_no_gain(tmp_path: Path) -> None:
    write_run(tmp_path, "both", 1, [0, 1, 2, 3])
    assert "gains" not in summary(tmp_path)
