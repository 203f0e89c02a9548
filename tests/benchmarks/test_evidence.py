"""The evidence from end to end on tiny sets: runs that survive failures, and everything that is measured on them."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.evidence import plan
from benchmarks.evidence.__main__ import evidence, main
from benchmarks.evidence.clip_set import flat, prepared_digits
from benchmarks.evidence.cost import cost_table, trained_parameters, training_step
from benchmarks.evidence.plan import CLCR, Section
from benchmarks.evidence.processes import do_missing, one_thread_each
from benchmarks.evidence.report import report
from benchmarks.evidence.runs import Run, do, load
from benchmarks.evidence.sets import Files, evidence_set, planted_set
from multifuse.recipes.data.features.planted_settings import SETTINGS
from multifuse.recipes.measures import classification
from tests import media_files
from tests.benchmarks.conftest import Command
from tests.files import bert, contents, mmsa_splits, write

TINY = replace(SETTINGS["default"], sizes={"train": 48, "valid": 24, "test": 24})
SECTION = Section("tiny", ("text",), fusions=(CLCR,), seeds=(1, 2), learning_rates=(0.001,), epochs=1)


@dataclass(frozen=True)
class MadeUpSet:
    """A set whose runs take no time; those of one seed fail after they have written to their folder."""

    failing: int = 0
    error: type[BaseException] = ValueError
    fingerprint: str = "made up"

    def measured(self, run: Run, folder: Path) -> dict[str, Any]:
        (folder / "checkpoint").write_text("half of it")
        if run.seed == self.failing:
            raise self.error("not\nthis one")
        return {"valid": {"mae": 0.5}, "test": {"mae": 0.25}}


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with one_thread_each(1) as pool:
        yield pool


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_command_refuses_results_of_other_data_with_one_line(tmp_path: Path, command: Command) -> None:
    do(Run("planted-default", CLCR, 1, 0.001), MadeUpSet(), tmp_path)
    line = command.refuses(main, "--summary", "--results", tmp_path)
    assert line.startswith(f"{tmp_path}/planted-default/clcr.lr=0.001.seed=1.json was made with other")
    assert not (tmp_path / "weights.png").exists()


def test_the_summary_refuses_results_of_different_data_without_the_data(tmp_path: Path, command: Command) -> None:
    for seed, fingerprint in ((1, "made up"), (2, "made up"), (3, "changed")):
        do(Run("mosi", CLCR, seed, 0.001), MadeUpSet(fingerprint=fingerprint), tmp_path)
    line = command.refuses(main, "--summary", "--results", tmp_path)
    assert line.startswith(f"mosi: {tmp_path}/mosi/clcr.lr=0.001.seed=1.json and ")
    assert "seed=3.json were made with different data (fingerprint made up and changed)" in line


def test_results_of_a_finished_set_are_compared_with_the_data_that_are_named(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in plan.POOLED:
        do(Run("mosi", kind, 1), MadeUpSet(), tmp_path)
    section = Section("mosi", (), fusions=())
    assert not any(plan.missing(section, tmp_path))
    monkeypatch.setattr("benchmarks.evidence.__main__.SECTIONS", (section,))
    monkeypatch.setattr("benchmarks.evidence.__main__.evidence_set", lambda *_: MadeUpSet(fingerprint="changed"))
    line = command.refuses(main, "--only", "mosi", "--mosi", "FILE", "--text-encoder", "NAME", "--results", tmp_path)
    assert "was made with other data (fingerprint made up, not changed)" in line


def test_a_summary_without_results_says_so(tmp_path: Path, command: Command) -> None:
    line = command.refuses(main, "--summary", "--only", "mosi", "--results", tmp_path / "none")
    assert line == f"--results {tmp_path}/none holds no results of mosi"


def test_a_summary_shows_only_the_sets_that_are_asked_for(tmp_path: Path, command: Command) -> None:
    for name in ("mosi", "planted-levels"):
        source = MadeUpSet(fingerprint=planted_set(SETTINGS["levels"]).fingerprint)
        do(Run(name, "svm", 1), source, tmp_path)
    printed = command.prints(main, "--summary", "--only", "mosi", "--results", tmp_path)
    assert [line for line in printed.splitlines() if line.startswith("## ")] == ["## mosi"]


def test_text_features_are_kept_by_the_content_of_file_and_encoder(tmp_path: Path) -> None:
    files = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        (folder / "encoder").mkdir(parents=True)
        encoder = bert(folder / "encoder")
        (encoder / "version").write_text(str(number))
        files.append((write(folder / "data.pkl", mmsa_splits(seed=number, count=3)), str(encoder)))
    (data, encoder_name), (other_data, other_encoder) = files
    given = [(data, encoder_name), (other_data, encoder_name), (data, other_encoder), (data, encoder_name)]
    kept = [evidence_set("mosi", Files(*named), tmp_path / "prepared") for named in given]
    assert kept[0] == kept[3]
    assert len({source.fingerprint for source in kept}) == 3


def test_the_fingerprint_of_text_features_does_not_depend_on_the_processor_that_computed_them(tmp_path: Path) -> None:
    encoder, data = tmp_path / "encoder", write(tmp_path / "data.pkl", mmsa_splits(seed=1, count=3))
    encoder.mkdir()
    bert(encoder)
    files, prepared = Files(data, str(encoder)), tmp_path / "prepared"
    before = evidence_set("mosi", files, prepared)
    (features,) = prepared.iterdir()
    features.write_bytes(b"with other last digits")
    assert evidence_set("mosi", files, prepared).fingerprint == before.fingerprint


def test_the_fingerprint_of_a_planted_set_is_that_of_its_settings() -> None:
    settings = SETTINGS["default"]
    assert planted_set(settings).fingerprint == planted_set(replace(settings)).fingerprint
    assert planted_set(settings).fingerprint != planted_set(replace(settings, copy_noise=0.25)).fingerprint


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_or_is_interrupted_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    run = Run("tiny", CLCR, 1, 0.001)
    with pytest.raises(error):
        do(run, MadeUpSet(1, error), tmp_path)
    assert names(tmp_path) == []
    assert load(run, tmp_path) is None


def test_what_a_killed_process_left_of_a_file_is_no_result(tmp_path: Path) -> None:
    run = Run("tiny", CLCR, 1, 0.001, config=(("gamma", 0.5),))
    path = run.path(tmp_path)
    path.parent.mkdir()
    path.with_name(f".{path.name}.partial").write_text('{"valid": ')
    assert load(run, tmp_path) is None
    do(run, MadeUpSet(), tmp_path)
    assert names(tmp_path) == ["tiny/clcr.gamma=0.5.lr=0.001.seed=1.json"]
    result = load(run, tmp_path)
    assert result is not None
    assert result["run"] == {
        "data": "tiny",
        "model": CLCR,
        "seed": 1,
        "lr": 0.001,
        "modalities": None,
        "config": [["gamma", 0.5]],
        "epochs": None,
    }


def test_a_run_that_fails_neither_stops_nor_loses_the_others(
    tmp_path: Path, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = do_missing(executor, [SECTION], {"tiny": MadeUpSet(failing=2)}, tmp_path)
    assert [(run.model, run.modalities, run.seed) for run in failed] == [(CLCR, None, 2), ("late-fusion", ("text",), 2)]
    assert len(names(tmp_path)) == 4
    assert "tiny, clcr.epochs=1.lr=0.001, seed 2: ValueError: not this one" in capsys.readouterr().out
    before = contents(tmp_path)
    assert do_missing(executor, [SECTION], {"tiny": MadeUpSet()}, tmp_path) == []
    after = contents(tmp_path)
    assert len(after) == 6
    assert before.items() <= after.items(), "a run that had been done was done again"


def test_tiny_planted_runs_measure_everything_that_the_tables_show(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.CONFIGS, "budget", {"gamma 0.25": {"gamma": 0.25}})
    section = replace(SECTION, tables=("models", "budget"), seeds=(1,))
    assert do_missing(executor, [section], {"tiny": planted_set(TINY)}, tmp_path) == []
    assert names(tmp_path) == [
        "tiny/clcr.epochs=1.lr=0.001.seed=1.json",
        "tiny/clcr.gamma=0.25.epochs=1.lr=0.001.seed=1.json",
        "tiny/late-fusion.text.epochs=1.lr=0.001.seed=1.json",
        "tiny/ridge.seed=1.json",
        "tiny/svm.seed=1.json",
    ]
    text = report([section], tmp_path)
    for title in ("Models, ", "Learning rates", "Weights", "Rise of", "Linear probes", "Budget", "Tokens"):
        assert f"\n{title}" in text
    result = load(Run("tiny", CLCR, 1, 0.001, epochs=1), tmp_path)
    assert result is not None
    assert len(result["epochs"]) == 1
    assert {len(result["test_predictions"]), result["samples"]["test"]} == {24}
    assert (len(result["activation"]), len(result["subsets"])) == (9, 7)
    assert {(entry["kind"], entry["level"]) for entry in result["corruption"]} >= {("noise", 2.0), ("shift", 8)}
    assert "1 threads" in result["machine"]
    # The second call does nothing.
    before = contents(tmp_path)
    assert evidence([section], {"tiny": planted_set(TINY)}, tmp_path, processes=1) == []
    assert contents(tmp_path) == before


def test_tiny_digits_are_scored_by_accuracy(tmp_path: Path) -> None:
    source = media_files.av_digits(tmp_path / "data")
    digits = prepared_digits(source, tmp_path / "prepared")
    assert prepared_digits(source, tmp_path / "prepared") == digits
    section = Section(
        "av_digits", ("audio", "vision"), seeds=(1,), learning_rates=(0.001,), choice=classification.CHOICE, epochs=1
    )
    results = tmp_path / "results"
    for run in (
        Run("av_digits", CLCR, 1, 0.001, epochs=1),
        Run("av_digits", "late-fusion", 1, 0.001, ("vision",), epochs=1),
        Run("av_digits", "svm", 1),
        Run("av_digits", "ridge", 1),
    ):
        with contextlib.redirect_stdout(None):
            do(run, digits, results)
    clcr = json.loads(next(results.rglob("clcr*.json")).read_text())
    assert (set(clcr["valid"]), len(clcr["test_predictions"])) == ({"accuracy", "macro_f1", "weighted_f1"}, 6)
    assert [subset["modalities"] for subset in clcr["subsets"]] == [["audio", "vision"], ["audio"], ["vision"]]
    assert clcr["subsets"][0]["accuracy"] == pytest.approx(clcr["test"]["accuracy"], abs=1e-4)
    assert clcr["epochs"][0]["level_entropy"] == pytest.approx(1), "the recipe's floors keep all weights uniform"
    text = report([section], results)
    assert "| vision alone | 0.001 | 1 |" in text
    # Every digit has a tone and a grey of its own, which linear models and kernels tell apart.
    assert "| ridge, pooled features |  | 1 | 100.0 | 100.0 |" in text
    assert "Fall of the test accuracy (%)" in text


def test_the_same_digits_with_other_sound_or_pictures_are_other_data(tmp_path: Path) -> None:
    source = media_files.av_digits(tmp_path / "data", clips=10)
    before = prepared_digits(source, tmp_path / "prepared")
    sound = source / "audio/3_anna_3.wav"
    as_distributed = sound.read_bytes()
    media_files.wav(sound, 0.4, pitch=900)
    changed = prepared_digits(source, tmp_path / "prepared")
    sound.write_bytes(as_distributed)
    assert prepared_digits(source, tmp_path / "prepared") == before
    (source / "image/3_anna_3.png").write_bytes((source / "image/4_anna_4.png").read_bytes())
    pictures = prepared_digits(source, tmp_path / "prepared")
    for of_set in ("prepared", "fingerprint"):
        assert len({getattr(digits, of_set) for digits in (before, changed, pictures)}) == 3


def test_clips_are_flattened_to_spectrogram_and_half_sized_grey_frame() -> None:
    frames = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    values = flat({"audio": torch.ones(1, 2, 5), "vision": frames})
    assert values.shape == (10 + 4,)
    # The upper left quarter holds 0, 1, 4, 5 of the first channel of the first frame, and 16 more in each next one.
    assert values[10] == 2.5 + 16 * 2.5


def test_the_cost_of_a_step_is_that_of_training() -> None:
    model, step = training_step("late-fusion", TINY)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step()
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    size = sum(weight.numel() for weight, has_changed in zip(before, changed, strict=True) if has_changed)
    assert 0 < trained_parameters(model) == size < model.num_parameters(), "late fusion does not read the lower levels"
    table = cost_table(TINY, (CLCR, "late-fusion"), seconds=0.0)
    assert f"| late-fusion | {size:,} | " in table
    assert next(line for line in table.splitlines() if line.startswith(f"| {CLCR} |")).endswith("| 1.00 |")
