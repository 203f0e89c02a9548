"""The MOSI benchmark: its tables and intervals, worked by hand from result files."""

import json
from pathlib import Path

from benchmarks.mosi import MEASURES, summary

LABELS = [1.0, -1.0, 2.0, 0.0]


def write_run(folder: Path, model: str, seed: int, predictions: list[float], mae: float) -> None:
    run = {
        "data": "mosi.pkl",
        "text_encoder": "bert",
        "model": model,
        "seed": seed,
        "seconds": 60.0,
        "test": {**dict.fromkeys(MEASURES, 0.5), "mae": mae},
        "test_predictions": predictions,
        "test_labels": LABELS,
    }
    (folder / f"{model}.{seed}.json").write_text(json.dumps(run))


def test_summary_shows_means_deviations_and_paired_gains(tmp_path: Path) -> None:
    for seed, shift in ((1, 0.1), (2, 0.3)):
        write_run(tmp_path, "text", seed, [label + 2 * shift for label in LABELS], 2 * shift)
        write_run(tmp_path, "clcr", seed, [label + shift for label in LABELS], shift)
    write_run(tmp_path, "clcr", 3, LABELS, 0.0)  # unpaired: in the table, but not in the gain
    table = summary(tmp_path)
    assert "### bert on mosi.pkl" in table
    assert "| text | 1, 2 | 0.400 ± 0.283 | 0.500 ± 0.000 | 50.0 ± 0.0 |" in table
    assert "| clcr | 1, 2, 3 | 0.133 ± 0.153 |" in table
    # The error of every utterance falls by 0.1 and by 0.3, so by 0.2 on average, and the interval has no width.
    assert "2 paired seeds: MAE lower by +0.2000 (95 % interval +0.2000 to +0.2000)" in table
    assert "Acc-2 non0 higher by +0.00 points" in table


def test_without_results_the_summary_is_empty(tmp_path: Path) -> None:
    assert summary(tmp_path) == ""
