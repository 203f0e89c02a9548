"""A compiled model is trained like one that is not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob
from tests.files import mmsa_splits, write


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
