"""A run: what is refused when it is resumed; a compiled model is trained like one that is not."""

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
