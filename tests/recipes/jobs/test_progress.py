"""What a training prints: an epoch's line, and paths as they are."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from multifuse.recipes.jobs import progress
from multifuse.recipes.jobs.progress import EpochLines
from multifuse.recipes.measures.sentiment import CHOICE, SentimentMeasures

MEASURES = SentimentMeasures(*[0.5] * 8)


def test_an_epoch_without_a_logged_loss_shows_none(capsys: pytest.CaptureFixture[str]) -> None:
    lines = EpochLines(CHOICE)
    arguments, state = SimpleNamespace(num_train_epochs=3), SimpleNamespace(is_world_process_zero=True)
    evaluated = {f"eval_{name}": value for name, value in vars(MEASURES).items()}
    lines.on_log(arguments, state, None, {**evaluated, "epoch": 1})
    lines.on_log(arguments, state, None, {"loss": 0.25})
    lines.on_log(arguments, state, None, {**evaluated, "epoch": 2})
    lines.on_log(arguments, state, None, {**evaluated, "epoch": 3})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/3  valid MAE 0.5")
    assert second.startswith("epoch 2/3  train loss 0.250  valid MAE 0.5")
    assert third.startswith("epoch 3/3  valid MAE 0.5"), "the loss of an earlier epoch is shown again"


def test_a_folder_with_brackets_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    progress.report(CHOICE, MEASURES, MEASURES, 1.0, Path("runs/[v2] x"))
    progress.announce_clips(Path("[bold]"), {"train": 1}, ("audio",), None)
    printed = capsys.readouterr().out
    assert "Wrote runs/[v2] x/metrics.json" in printed
    assert "Read [bold]: train 1" in printed
