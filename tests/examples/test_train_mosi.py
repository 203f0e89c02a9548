"""`examples/train_mosi.py` on the command line: from raw file to metrics, and every kind of file that it refuses."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from multifuse import CLCRForPrediction
from tests import programs
from tests.files import bert, mmsa_splits, write
from tests.paths import ROOT

SCRIPT = ROOT / "examples/train_mosi.py"
TEST_MEASURES = {"mae", "corr", "acc7", "acc5", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0"}


def train(*arguments: Any, cwd: Path) -> programs.Done:
    """Runs the example in this process."""
    return programs.run(SCRIPT, *arguments, cwd=cwd)


def launched(*arguments: Any, cwd: Path, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the example in a process of its own, as a user would; every warning of this library is an error."""
    command = [sys.executable, "-W", "error:::multifuse", *launcher, str(SCRIPT), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def metrics(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return content


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "small.pkl", mmsa_splits(count=40))


@pytest.fixture(scope="module")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("encoder"))


def test_the_built_in_data_trains_from_raw_file_to_metrics(tmp_path: Path) -> None:
    output = tmp_path / "run"
    done = launched("--output", output, "--epochs", 1, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    assert "Replaced 3 non-finite values in audio with 0" in done.stdout
    assert "Acc-2 non0" in done.stdout
    content = metrics(output)
    assert set(content["test"]) == TEST_MEASURES
    assert content["synthetic"] is True
    assert [entry["epoch"] for entry in content["epochs"]] == [1.0]
    weights = {f"{kind}_{name}" for kind in ("modality_weight", "private_gate") for name in ("text", "vision", "audio")}
    weights |= {"level_weight_1", "level_weight_2", "level_weight_3", "level_entropy", "modality_entropy"}
    assert weights < set(content["epochs"][0])
    assert content["epochs"][0]["modality_entropy"] > 0.9, (
        "beta has collapsed before the encoders have learned anything"
    )
    assert content["samples"] == {"train": 1024, "valid": 192, "test": 384}
    with Image.open(output / "training.png") as figure:
        assert figure.size[0] > 600
    model = CLCRForPrediction.from_pretrained(output / "model")
    assert list(model.config.modalities) == ["text", "vision", "audio"]
    assert not list(output.glob(".*")), "a partial file was left behind"


def test_a_real_layout_trains_with_a_text_encoder_and_a_finished_run_is_not_overwritten(
    tmp_path: Path, small_file: Path, small_encoder: Path
) -> None:
    output = tmp_path / "run"
    arguments = ("--data", small_file, "--text-encoder", small_encoder, "--output", output, "--epochs", 2)
    done = train(*arguments, "--batch-size", 8, "--seed", 7, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = metrics(output)
    assert content["modalities"] == ["text", "vision", "audio"]
    assert content["recipe"]["batch_size"] == 8
    assert content["seed"] == 7
    assert content["replaced_non_finite"]["audio"] == 3
    before = (output / "metrics.json").read_bytes()
    again = train(*arguments, cwd=tmp_path)
    assert again.returncode == 2
    assert "already holds a finished run's metrics.json" in again.stderr
    assert (output / "metrics.json").read_bytes() == before


def test_the_text_baseline_and_the_paper_recipe_run(tmp_path: Path, small_file: Path, small_encoder: Path) -> None:
    arguments = ("--data", small_file, "--text-encoder", small_encoder, "--epochs", 1)
    text = train(*arguments, "--model", "text", "--output", tmp_path / "text", cwd=tmp_path)
    assert text.returncode == 0, text.stderr
    paper = train(*arguments, "--recipe", "paper", "--output", tmp_path / "paper", cwd=tmp_path)
    assert paper.returncode == 0, paper.stderr
    assert metrics(tmp_path / "paper")["recipe"]["optimizer"] == "sgd"


def test_equal_seeds_give_equal_results(tmp_path: Path, small_file: Path) -> None:
    runs = []
    for name in ("first", "second"):
        arguments = ("--data", small_file, "--output", tmp_path / name, "--epochs", 1, "--device", "cpu")
        done = (train if name == "first" else launched)(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        runs.append(metrics(tmp_path / name)["test"])
    assert runs[0] == runs[1]


def test_a_killed_run_resumes_to_the_uninterrupted_result(
    tmp_path: Path, small_file: Path, small_encoder: Path
) -> None:
    output = tmp_path / "run"
    common = ["--data", str(small_file), "--text-encoder", str(small_encoder), "--epochs", "10", "--device", "cpu"]
    arguments = [*common, "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("checkpoints/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (output / "checkpoints/checkpoint-9999").mkdir()  # as left by a kill in the middle of a checkpoint
    assert not (output / "metrics.json").exists()
    refused = train(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "use --resume" in refused.stderr
    other = train(*arguments, "--resume", "--seed", 5, cwd=tmp_path)
    assert other.returncode == 2
    assert "was started with seed 1111, now 5" in other.stderr
    done = train(*arguments, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    uninterrupted = train(*common, "--output", tmp_path / "uninterrupted", cwd=tmp_path)
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    for split in ("valid", "test"):
        assert metrics(output)[split] == metrics(tmp_path / "uninterrupted")[split]
    resumed, expected = (load_file(run / "model/model.safetensors") for run in (output, tmp_path / "uninterrupted"))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_two_processes_of_torchrun_match_one(tmp_path: Path) -> None:
    """Four epochs of six steps, whose last batch is uneven: 3 samples, 2 on one rank and 1 on the other."""
    data = write(tmp_path / "data.pkl", mmsa_splits(count=43))
    arguments = ("--data", data, "--batch-size", 8, "--epochs", 4, "--dropout", 0, "--log-steps", 1, "--device", "cpu")
    assert train(*arguments, "--output", tmp_path / "one", cwd=tmp_path).returncode == 0
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29631")
    done = launched(*arguments, "--output", tmp_path / "two", cwd=tmp_path, launcher=torchrun)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Read ") == 1, "more than one process printed"
    expected = logged_losses(tmp_path / "one")
    assert len(expected) == 24
    np.testing.assert_allclose(logged_losses(tmp_path / "two")[:20], expected[:20], rtol=1e-4)
    for split in ("valid", "test"):
        ours, single = metrics(tmp_path / "two")[split], metrics(tmp_path / "one")[split]
        assert abs(ours["mae"] - single["mae"]) < 1e-3, "the measures omit a sample or count it twice"


def logged_losses(output: Path) -> list[float]:
    """Returns the training loss of every step."""
    (checkpoint,) = (output / "checkpoints").glob("checkpoint-24")
    history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


class _Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be opened: No such file"),
        (b"", "empty or truncated"),
        (b"\x89PNG not a pickle", "cannot be read as a pickle"),
        (pickle.dumps(mmsa_splits())[:5000], "cannot be read as a pickle"),
        (
            pickle.dumps({"train": _Hostile()}),
            "refused, a feature file may contain only arrays, but it names posix.system",
        ),
        (pickle.dumps({"train": {}, "valid": {}, "test": {}}), "train.regression_labels is missing"),
    ],
)
def test_a_bad_file_gives_a_one_line_error_and_nothing_is_executed_or_written(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "bad.pkl").write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    done = train("--data", tmp_path / "bad.pkl", "--output", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", 0), "--epochs must be >= 1, got 0"),
        (("--dropout", 1), "--dropout must be in [0, 1), got 1.0"),
        (("--lr", -1), "--lr must be finite and > 0, got -1.0"),
        (("--model", "text"), "--model text needs --text-encoder"),
        (("--text-encoder", "./no-such-folder"), "--text-encoder ./no-such-folder"),
        (("--resume",), "--resume and torchrun need --output"),
        (("--planted", "levels"), "--planted levels is a setting of the built-in default, got --data"),
    ],
)
def test_bad_arguments_give_a_one_line_error(
    tmp_path: Path, small_file: Path, arguments: tuple[Any, ...], message: str
) -> None:
    output = () if arguments == ("--resume",) else ("--output", tmp_path / "run")
    done = train("--data", small_file, *output, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
