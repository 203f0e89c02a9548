"""The AV digits benchmark: its table and gain, worked by hand from result files, and its held-out speakers."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from benchmarks.av_digits import MEASURES, main, measure, summary, without_speakers
from benchmarks.evidence.clip_set import prepared_digits
from multifuse.recipes.jobs.audiovisual import PreparedClips
from tests import media_files
from tests.benchmarks.conftest import Command, FakeRuns

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


def test_summary_shows_means_deviations_and_the_gain_over_the_better_modality(tmp_path: Path) -> None:
    write_run(tmp_path, "both", 1, [0, 1, 2, 3])
    write_run(tmp_path, "both", 2, [0, 1, 2, 0])
    write_run(tmp_path, "audio", 1, [0, 0, 0, 0])
    write_run(tmp_path, "image", 1, [0, 1, 0, 0])
    table = summary(tmp_path)
    assert "| both | 1, 2 | 50.0 ± 0.0 | 87.5 ± 17.7 |" in table
    assert "| image | 1 | 50.0 | 50.0 |" in table
    assert "over image alone, the better of the two on test: +37.5 points" in table


def test_summary_shows_no_gain_without_single_modality_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "both", 1, [0, 1, 2, 3])
    assert "gains" not in summary(tmp_path)


def test_held_out_speakers_are_only_in_the_test_split() -> None:
    ids = {
        "train": ["0_theo_1", "1_anna_1", "2_theo_2", "3_bob_1"],
        "valid": ["4_theo_3", "5_bob_2"],
        "test": ["6_eve_1"],
    }
    data = PreparedClips(Path(), {}, {split: Dataset.from_dict({"id": names}) for split, names in ids.items()})
    splits = without_speakers(data, ("theo",)).splits
    assert {split: list(rows["id"]) for split, rows in splits.items()} == {
        "train": ["1_anna_1", "3_bob_1"],
        "valid": ["5_bob_2"],
        "test": ["0_theo_1", "2_theo_2"],
    }
    with pytest.raises(ValueError, match=r"must name speakers of the training split, got \['eve'\]"):
        without_speakers(data, ("theo", "eve"))


def test_runs_without_some_speakers_have_separate_rows(tmp_path: Path) -> None:
    write_run(tmp_path, "image-without-theo", 1, [0, 1, 0, 0])
    write_run(tmp_path, "both", 1, [0, 1, 2, 3])
    rows = [line.split(" | ")[0] for line in summary(tmp_path).splitlines()[2:]]
    assert rows == ["| both", "| image-without-theo"]


def test_a_summary_without_results_says_so(tmp_path: Path, command: Command) -> None:
    assert command.refuses(main, "--output", tmp_path, "--summary") == f"{tmp_path} holds no results"


def test_results_of_other_pictures_are_refused(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = FakeRuns(MEASURES, [0, 0])
    monkeypatch.setattr("benchmarks.av_digits.run", runs)
    source, output = media_files.av_digits(tmp_path / "data", clips=10), tmp_path / "results"
    named = ["--data", source, "--output", output, "--prepared", tmp_path / "prepared", "--seeds", 1]
    table = command.prints(main, *named, "--inputs", "both")
    assert command.prints(main, *named, "--inputs", "both") == table
    assert runs.seeds == [1]
    (source / "image/3_anna_3.png").write_bytes((source / "image/4_anna_4.png").read_bytes())
    assert "both.1.json was made with other data" in command.refuses(main, *named)
    measure(prepared_digits(source, tmp_path / "prepared"), "audio", 1, output)
    line = command.refuses(main, "--output", output, "--summary")
    assert "audio.1.json and " in line
    assert "both.1.json were made with different data" in line
