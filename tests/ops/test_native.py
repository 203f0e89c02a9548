"""Finding and loading the kernels: the fallback and its single warning, the report, and the CUDA library."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from multifuse import info
from multifuse.ops import native

_SCRIPT = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    from multifuse.ops import backend, project_capped_simplex
    alpha = project_capped_simplex(torch.tensor([[0.9, 0.5, 0.1]]), 0.9)
    assert torch.allclose(alpha, torch.tensor([[0.65, 0.25, 0.0]]))
print(backend("cpu"), sum("multifuse" in str(w.message) for w in caught))
"""


def test_the_environment_variable_forces_the_plain_path_silently() -> None:
    environment = {**os.environ, native.FALLBACK_VARIABLE: "1"}
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch", "0"]


def test_a_missing_binary_warns_once_and_says_how_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.FALLBACK_VARIABLE, raising=False)
    monkeypatch.setattr(native, "binary", lambda kind: None)
    native.load.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="no-build-isolation"):
            first = native.backend("cpu")
        assert (first, native.backend("cpu")) == ("torch", "torch")  # a second warning would be an error here
    finally:
        native.load.cache_clear()


def test_other_devices_use_the_plain_path() -> None:
    assert native.backend("meta") == "torch"
    if not torch.cuda.is_available():
        assert native.backend("cuda") == "torch"


def test_info_reports_versions_and_paths() -> None:
    report = "\n".join(info.lines())
    for expected in (
        f"torch {torch.__version__}",
        "transformers",
        "cpu kernels:",
        "project_capped_simplex on cpu runs:",
    ):
        assert expected in report


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH: the CUDA kernels are not built")
def test_the_cuda_library_contains_code_for_every_architecture_that_nvcc_knows() -> None:
    path = native.binary("cuda")
    assert path is not None, "nvcc is on the PATH, but the installation contains no CUDA library"
    known = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    content = path.read_bytes()
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert (architecture.encode() in content) == (architecture in known), architecture
