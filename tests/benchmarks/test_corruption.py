"""The corruption benchmark: its tables, worked by hand from result files, and the frozen text features."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks import fingerprints
from benchmarks.corruption import FIGURE, identified, main, measure, summary, with_frozen_text
from multifuse.recipes.corruption.corrupted import CorruptionScores
from multifuse.recipes.data.features.mmsa import read_mmsa
from multifuse.recipes.jobs.sentiment import SentimentJob
from tests.benchmarks.conftest import Command
from tests.files import bert, mmsa_splits, write


def write_run(folder: Path, fusion: str, seed: int, maes: tuple[float, float], **made_with: Any) -> None:
    scores = {"mae_deviation": 0.01, "corr": None, "acc2_non0": 0.5}
    run = {
        **made_with,
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


def test_without_results_the_summary_says_so_and_draws_no_figure(tmp_path: Path, command: Command) -> None:
    assert command.refuses(main, "--output", tmp_path, "--summary") == f"{tmp_path} holds no results"
    assert not list(tmp_path.iterdir())


def test_results_of_other_data_or_of_another_encoder_are_refused(tmp_path: Path, command: Command) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for number in (1, 2):
        (tmp_path / f"encoder{number}").mkdir()
        write(tmp_path / f"{number}.pkl", mmsa_splits(seed=number, count=3))
        (tmp_path / f"encoder{number}/weights").write_text(str(number))
    encoder = str(tmp_path / "encoder1")
    write_run(results, "clcr", 1, (0.4, 0.6), **identified(tmp_path / "1.pkl", encoder))
    named = ["--output", results, "--models", "clcr", "--seeds", 1, "--data"]
    assert command.refuses(main, *named[:-1]).startswith(f"{results}/clcr.1.json was made with other data")
    assert "other data" in command.refuses(main, *named, tmp_path / "2.pkl", "--text-encoder", encoder)
    assert "another text encoder" in command.refuses(main, *named, tmp_path / "1.pkl", "--summary")
    line = command.refuses(main, *named, tmp_path / "1.pkl", "--text-encoder", tmp_path / "encoder2")
    assert "another text encoder" in line
    same = [*named, tmp_path / "1.pkl", "--text-encoder", encoder, "--summary"]
    assert "| clcr | 1,234 | 1 |" in command.prints(main, *same)
    write_run(results, "late-fusion", 1, (0.6, 0.9))
    assert "late-fusion.1.json, of an earlier version, does not say" in command.refuses(main, *same)
    line = command.refuses(main, "--output", results, "--summary")
    assert "clcr.1.json and " in line
    assert "late-fusion.1.json were made with different data" in line


def test_a_new_result_says_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(job: SentimentJob) -> None:
        job.output.mkdir()
        (job.output / "metrics.json").write_text("{}")

    model = torch.nn.Linear(1, 1)
    model.config = SimpleNamespace(modalities=("audio",))  # type: ignore[assignment]
    monkeypatch.setattr("benchmarks.corruption.run", run)
    monkeypatch.setattr("benchmarks.corruption.model_class", lambda _: SimpleNamespace(from_pretrained=lambda _: model))
    monkeypatch.setattr("benchmarks.corruption.evaluated", lambda *_, **__: CorruptionScores((), ()))
    data = write(tmp_path / "data.pkl", mmsa_splits())
    measure(data, "clcr", 1, tmp_path, identified(data, None))
    fingerprints.check([tmp_path / "clcr.1.json"], identified(data, None))


def test_the_planted_set_takes_no_encoder(tmp_path: Path, command: Command) -> None:
    assert "--text-encoder needs --data" in command.refuses(main, "--output", tmp_path, "--text-encoder", "any")


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
