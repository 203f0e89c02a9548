"""Samples of more tokens than the default positions: training makes room for them, evaluation says so in one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from multifuse.recipes.commands.main import main
from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob
from tests.files import Splits, mmsa_splits, write


def with_long_audio(total: int) -> Splits:
    splits = mmsa_splits(count=4)
    for split in splits.values():
        split["audio"] = np.random.default_rng(0).normal(size=(4, total, 2)).astype(np.float32)
        split["audio_lengths"] = [total, 3, 4, 5]
        split["audio"] *= (np.arange(total) < np.array(split["audio_lengths"])[:, None])[..., None]
    return splits


def test_a_sample_of_1100_tokens_is_trained_on_and_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write(tmp_path / "long.pkl", with_long_audio(1100)), tmp_path / "run"
    arguments = ["--data", str(data), "--output", str(output), "--epochs", "1", "--device", "cpu"]
    assert main(["train", "mosi", *arguments]) == 0, capsys.readouterr().err
    assert json.loads((output / "metrics.json").read_text())["max_positions"] == 1100
    assert json.loads((output / "model/config.json").read_text())["max_positions"] == 1100
    longer = write(tmp_path / "longer.pkl", with_long_audio(1200))
    evaluate = ["evaluate", "--model", str(output), "--output", str(tmp_path / "out"), "--draws", "1"]
    capsys.readouterr()
    assert main([*evaluate, "--missing", "--data", str(longer)]) == 2
    error = capsys.readouterr().err
    assert error.endswith("audio has a sample of 1200 tokens; the model has 1100 positions\n")
    shifts = ["--noise", "--noise-levels", "0", "--drop-rates", "0", "--shifts", "1", "--data", str(data)]
    assert main([*evaluate, *shifts]) == 2
    error = capsys.readouterr().err
    assert "--shifts 1: inputs have 1101 tokens, more than max_positions=1100" in error
    assert "sinusoidal" not in error
    assert error.count("\n") == 1


def test_positions_that_the_user_set_too_low_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "long.pkl", with_long_audio(40))
    with pytest.raises(JobError, match="config: max_positions must be >= 40, as the longest sample, got 32"):
        run(SentimentJob(output=tmp_path / "run", data=data, config={"max_positions": 32}, device="cpu"))
