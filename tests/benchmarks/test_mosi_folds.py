"""The comparison on folds: no video is split, every utterance is held out once, and the table worked by hand."""

import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.mosi_folds import FOLDS, folds, main, summary, variant, write_fold
from multifuse.recipes.jobs.recipe import FEATURES
from multifuse.recipes.jobs.sentiment import SentimentJob
from tests.benchmarks.conftest import Command
from tests.files import mmsa_splits, write


def content() -> dict[str, dict[str, Any]]:
    names = np.array([f"video{index % 13}$_${index}" for index in range(60)])
    splits = {"train": names[:40], "valid": names[40:50], "test": names[50:]}
    return {
        split: {"id": ids, "regression_labels": np.arange(len(ids)), "audio": np.zeros((len(ids), 1, 2))}
        for split, ids in splits.items()
    }


def test_every_utterance_outside_test_is_held_out_once_and_no_video_is_split(tmp_path: Path) -> None:
    held_out: list[str] = []
    for fold in range(FOLDS):
        write_fold(content(), fold, [], tmp_path / "fold.pkl")
        parts = pickle.loads((tmp_path / "fold.pkl").read_bytes())
        videos = {split: {name.split("$_$")[0] for name in parts[split]["id"]} for split in parts}
        assert not videos["train"] & videos["valid"]
        assert parts["valid"]["id"].tolist() == parts["test"]["id"].tolist()
        held_out += parts["test"]["id"].tolist()
    expected = np.concatenate([content()["train"]["id"], content()["valid"]["id"]])
    assert sorted(held_out) == sorted(expected.tolist())


def test_folds_do_not_depend_on_the_order_of_the_utterances() -> None:
    names = content()["train"]["id"]
    assert folds(names[::-1])[::-1].tolist() == folds(names).tolist()


def test_an_excluded_modality_is_left_out(tmp_path: Path) -> None:
    write_fold(content(), 0, ["audio"], tmp_path / "fold.pkl")
    assert set(pickle.loads((tmp_path / "fold.pkl").read_bytes())["train"]) == {"id", "regression_labels"}


def test_changes_are_applied_to_the_recipe_or_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.mosi_folds.default_recipe", lambda encoder: FEATURES)
    recipe, config = variant("any", ["lr=5e-4", "num_levels=2", 'regression_loss="mse"'])
    assert (recipe.lr, recipe.regression_loss, recipe.epochs) == (5e-4, "mse", FEATURES.epochs)
    assert config == {"num_levels": 2}
    assert SentimentJob(output=Path("any"), recipe=recipe).recipe is recipe


def test_summary_compares_with_the_first_variant_on_common_folds(tmp_path: Path) -> None:
    for order, (name, fold, predictions) in enumerate(
        [("plain", 0, [1.5, -0.5]), ("plain", 1, [2.5, 1.0]), ("other", 0, [1.0, -1.0])]
    ):
        result = {"name": name, "fold": fold, "seconds": 60, "predictions": predictions, "labels": [1.0, -1.0]}
        path = tmp_path / f"{name}.{fold}.json"
        path.write_text(json.dumps(result))
        os.utime(path, (order, order))
    table = summary(tmp_path)
    assert "| plain | 2 | 1.1250 |" in table
    assert "| other | 1 | 0.0000 | 1.0000 | 100.00 | -0.5000 (-0.5000 to -0.5000) | 1.0 |" in table


def test_variants_without_a_common_fold_are_shown_and_not_compared(tmp_path: Path) -> None:
    for fold, name in enumerate(("plain", "other")):
        result = {"name": name, "fold": fold, "seconds": 60, "predictions": [1.5, -0.5], "labels": [1.0, -1.0]}
        (tmp_path / f"{name}.{fold}.json").write_text(json.dumps(result))
        os.utime(tmp_path / f"{name}.{fold}.json", (fold, fold))
    last = summary(tmp_path).splitlines()[-1]
    assert last == "| other | 1 | 0.5000 | 1.0000 | 100.00 | no fold in common | 1.0 |"


def test_a_summary_without_results_says_so(tmp_path: Path, command: Command) -> None:
    assert command.refuses(main, "--results", tmp_path, "--summary") == f"{tmp_path} holds no results"


def test_results_of_other_data_or_of_a_name_with_other_settings_are_refused(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []

    def run(job: SentimentJob) -> SimpleNamespace:
        jobs.append(job)
        assert job.data is not None
        labels = pickle.loads(job.data.read_bytes())["test"]["regression_labels"]
        return SimpleNamespace(best_epoch=1, seconds=1.0, predictions=labels + 0.5)

    monkeypatch.setattr("benchmarks.mosi_folds.run", run)
    monkeypatch.setattr("benchmarks.mosi_folds.default_recipe", lambda encoder: FEATURES)
    for number in (1, 2):
        (tmp_path / f"encoder{number}").mkdir()
        (tmp_path / f"encoder{number}/weights").write_text(str(number))
        write(tmp_path / f"{number}.pkl", mmsa_splits(seed=number))

    def arguments(*more: object, data: int = 1, encoder: int = 1) -> list[object]:
        named = ["--data", tmp_path / f"{data}.pkl", "--text-encoder", tmp_path / f"encoder{encoder}"]
        return [*named, "--results", tmp_path / "results", "--folds", 0, *more]

    table = command.prints(main, *arguments("--set", "lr=5e-4", "dropout=0.3"))
    assert command.prints(main, *arguments("--set", "dropout=0.3", "lr=0.0005")) == table
    assert len(jobs) == 1
    for more in (["--set", "lr=1e-3"], ["--without", "audio"], ["--seed", "2"]):
        line = command.refuses(main, *arguments(*more))
        assert "default.clcr.0.json was made with other settings" in line
    same = ["--set", "lr=5e-4", "dropout=0.3"]
    assert "another text encoder" in command.refuses(main, *arguments(*same, encoder=2))
    assert "other data" in command.refuses(main, *arguments("--name", "another", data=2))
    assert "| another.clcr | 1 | " in command.prints(main, *arguments("--name", "another", encoder=2))
    assert len(jobs) == 2
