"""The corruption benchmark: its tables, worked by hand from result files, and the frozen text features."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks.corruption import FIGURE, summary, with_frozen_text
from multifuse.recipes.data.features.mmsa import read_mmsa
from tests.files import bert, mmsa_splits, write


def write_run(folder: Path, fusion: str, seed: int, maes: tuple[float, float]) -> None:
    scores = {"mae_deviation": 0.01, "corr": None, "acc2_non0": 0.5}
    run = {
        "model": fusion,
        "seed": seed,
        "parameters": 1234,
        "valid": {"mae": 0.5},
        "test": {"mae": maes[0], "corr": 0.25, "acc2_non0": 0.75},
        "corruption": {
            "late": [],
            "corrupted": [
                {"kind": "noise", "level": level, "mae": mae, **scores}
                for level, mae in zip((0.0, 2.0), maes, strict=True)
            ],
        },
    }
    (folder / f"{fusion}.{seed}.json").write_text(json.dumps(run))


def test_summary_shows_means_deviations_and_the_rise_paired_by_run(tmp_path: Path) -> None:
    write_run(tmp_path, "clcr", 1, (0.4, 0.6))
    write_run(tmp_path, "clcr", 2, (0.5, 0.7))
    write_run(tmp_path, "late-fusion", 1, (0.6, 0.9))
    table = summary(tmp_path)
    assert "| clcr | 1,234 | 1, 2 | 0.500 ± 0.000 | 0.450 ± 0.071 | 0.250 ± 0.000 | 75.0 ± 0.0 |" in table
    assert "| model | 0 | 2 | rise at 2 |" in table
    assert "| clcr | 0.450 ± 0.071 | 0.650 ± 0.071 | 0.200 ± 0.000 |" in table
    assert "| late-fusion | 0.600 | 0.900 | 0.300 |" in table
    assert "delay" not in table, "no modality was delayed"
    assert (tmp_path / FIGURE).read_bytes().startswith(b"\x89PNG")


def test_without_results_the_summary_is_empty_and_no_figure_is_drawn(tmp_path: Path) -> None:
    assert summary(tmp_path) == ""
    assert not list(tmp_path.iterdir())


def test_frozen_text_features_are_the_encoders_last_layer(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    encoder, data = bert(tmp_path / "encoder"), write(tmp_path / "data.pkl", mmsa_splits(count=5))
    with_frozen_text(data, str(encoder), tmp_path / "frozen.pkl")
    before, after = read_mmsa(data).test, read_mmsa(tmp_path / "frozen.pkl").test
    assert np.array_equal(after.labels, before.labels)
    assert np.array_equal(after.features["audio"].values, before.features["audio"].values)
    tokens = AutoTokenizer.from_pretrained(encoder)("the film 3 was good", return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(encoder)(**tokens).last_hidden_state[0]
    text = after.features["text"]
    assert text.lengths[3] == len(expected)
    np.testing.assert_allclose(text.values[3, : len(expected)], expected.numpy(), atol=1e-5)
    assert not text.values[3, len(expected) :].any()
