"""The MOSI benchmark: its tables and intervals, worked by hand from result files."""

import json
from pathlib import Path

import pytest

from benchmarks.mosi import MEASURES, main, summary
from tests.benchmarks.conftest import Command, FakeRuns
from tests.files import mmsa_splits, write

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


def test_a_summary_without_results_says_so(tmp_path: Path, command: Command) -> None:
    assert command.refuses(main, "--results", tmp_path, "--summary") == f"{tmp_path} holds no results"


def test_results_of_other_data_or_encoder_of_the_same_name_are_refused(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = FakeRuns(MEASURES, [0.0] * 6)
    monkeypatch.setattr("benchmarks.mosi.run", runs)
    for number in (1, 2):
        (tmp_path / str(number) / "encoder").mkdir(parents=True)
        write(tmp_path / str(number) / "data.pkl", mmsa_splits(seed=number))
        (tmp_path / str(number) / "encoder/weights").write_text(str(number))

    def arguments(data: int, encoder: int) -> list[object]:
        named = ["--data", tmp_path / f"{data}/data.pkl", "--text-encoder", tmp_path / f"{encoder}/encoder"]
        return [*named, "--results", tmp_path / "results", "--seeds", 1]

    table = command.prints(main, *arguments(1, 1))
    assert command.prints(main, *arguments(1, 1)) == table
    assert runs.seeds == [1, 1], "a run that had been done was done again"
    assert "data.encoder.text.1.json was made with other data" in command.refuses(main, *arguments(2, 1))
    assert "was made with another text encoder" in command.refuses(main, *arguments(1, 2), "--summary")
    path = tmp_path / "results/data.encoder.clcr.1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "changed"}))
    line = command.refuses(main, "--results", tmp_path / "results", "--summary")
    assert line.startswith("encoder on data.pkl: ")
    assert "text.1.json were made with different data" in line
