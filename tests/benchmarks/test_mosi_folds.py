"""The comparison on folds: no video is split, every utterance is held out once, and the table worked by hand."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.mosi_folds import FOLDS, folds, summary, variant, write_fold
from multifuse.recipes.jobs.recipe import FEATURES
from multifuse.recipes.jobs.sentiment import SentimentJob


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
