"""A run: what is refused when it is resumed, which folder is its own, and that a compiled model is trained like any."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob
from tests.files import bert, contents, mmsa_splits, write
from tests.sizes import SMALL_SIZES


def test_a_compiled_model_is_trained_like_one_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, graphs = write(tmp_path / "data.pkl", mmsa_splits()), []

    def counted(graph: torch.fx.GraphModule, examples: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, dynamic: _compiled_by(counted, module, dynamic))
    config = {"hidden_size": 16, "shared_rank": 8, "private_rank": 4, "num_levels": 1}
    options = {"data": data, "epochs": 1, "dropout": 0.0, "device": "cpu", "config": config}
    plain, compiled = (
        run(SentimentJob(output=tmp_path / str(compile), compile=compile, **options))  # type: ignore[arg-type]
        for compile in (False, True)
    )
    assert graphs
    np.testing.assert_allclose(compiled.predictions, plain.predictions, atol=1e-4)


def _compiled_by(backend: object, module: torch.nn.Module, dynamic: bool) -> None:
    module._compiled_call_impl = torch.compile(module._call_impl, backend=backend, dynamic=dynamic)  # type: ignore[call-overload]


def test_compiling_without_a_compiler_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(JobError, match="--compile needs a C\\+\\+ compiler on a CPU, found no no-such-compiler"):
        run(SentimentJob(output=tmp_path / "run", compile=True, device="cpu"))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> SentimentJob:
    """Trains with a text encoder, and leaves the run as a kill after its last epoch would."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "bert").mkdir()
    data, encoder = write(folder / "data.pkl", mmsa_splits(count=12)), bert(folder / "bert")
    options = {"epochs": 1, "device": "cpu", "config": SMALL_SIZES, "modalities": ("text", "audio"), "bf16": False}
    job = SentimentJob(output=folder / "run", data=data, text_encoder=str(encoder), **options)  # type: ignore[arg-type]
    run(job)
    (job.output / "metrics.json").unlink()
    return replace(job, resume=True)


def other_encoder(folder: Path) -> str:
    folder.mkdir()
    encoder = bert(folder)
    (encoder / "vocab.txt").write_text("other")
    return str(encoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda folder: {"data": write(folder / "data.pkl", mmsa_splits(count=13))}, "data 'data.pkl' with SHA-256"),
        (lambda folder: {"text_encoder": other_encoder(folder / "bert")}, "text_encoder 'bert[^']*' with SHA-256"),
        (lambda _: {"bf16": True}, "bf16 False, now True"),
        (lambda _: {"compile": True}, "compile False, now True"),
    ],
    ids=["data", "encoder", "bf16", "compile"],
)
def test_a_run_is_not_resumed_with_what_would_change_its_result(
    stopped: SentimentJob, tmp_path: Path, changes: Any, message: str
) -> None:
    before = contents(stopped.output)
    with pytest.raises(JobError, match=f"^--resume: the run in .* was started with {message}") as refused:
        run(replace(stopped, **changes(tmp_path)))
    assert "\n" not in str(refused.value)
    assert contents(stopped.output) == before


def test_a_run_is_not_resumed_by_another_number_of_processes(
    stopped: SentimentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(JobError, match="processes 1, now 2"):
        run(stopped)


@pytest.fixture
def job(tmp_path: Path) -> SentimentJob:
    data = write(tmp_path / "data.pkl", mmsa_splits(count=12))
    return SentimentJob(output=tmp_path / "runs/run", data=data, epochs=1, device="cpu", config=SMALL_SIZES)


def run_inside(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Makes another run start and end while the first one to be started announces its data."""
    announce = SentimentJob.announce

    def interrupted(self: SentimentJob, data: Any) -> None:
        monkeypatch.setattr(SentimentJob, "announce", announce)
        other()

    monkeypatch.setattr(SentimentJob, "announce", interrupted)


def test_runs_that_are_given_the_same_new_folder_have_one_each(
    job: SentimentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inside(monkeypatch, lambda: run(replace(job, seed=2, new_output=True)))
    run(replace(job, seed=1, new_output=True))
    run(replace(job, seed=3, new_output=True))
    folders = sorted(job.output.parent.iterdir())
    assert [folder.name for folder in folders] == ["run", "run-2", "run-3"]
    assert [json.loads((folder / "metrics.json").read_text())["seed"] for folder in folders] == [1, 2, 3]
    assert [json.loads((folder / "job.json").read_text())["seed"] for folder in folders] == [1, 2, 3]


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_which_a_run_has_not_ended_is_refused(
    job: SentimentJob, resume: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(JobError) as caught:
            run(replace(job, resume=resume))
        refused.append(str(caught.value))

    run_inside(monkeypatch, second)
    run(job)
    assert refused == [f"--output {job.output} is in use by a run that has not ended; choose another folder"]


@pytest.mark.parametrize("new_output", [False, True])
def test_a_run_that_cannot_start_leaves_no_folder(job: SentimentJob, tmp_path: Path, new_output: bool) -> None:
    with pytest.raises(JobError, match="max_positions must be >="):
        run(replace(job, new_output=new_output, config={"max_positions": 1}))
    assert [path.name for path in tmp_path.iterdir()] == ["data.pkl"]
