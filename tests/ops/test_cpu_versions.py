"""The kernel versions for older processors: each matches plain torch, in a separate process."""

import os
import subprocess
import sys

import pytest

from multifuse.ops import backend

_SCRIPT = """
import torch
from multifuse.ops import attention, portable, project_capped_simplex

torch.manual_seed(0)
for length in (1, 15, 50, 300, 1500):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        z = (torch.rand(4, length) * 1.4 - 0.2).to(dtype).requires_grad_()
        limit = torch.rand(4, dtype=portable.compute_dtype(dtype)) * length
        alpha, threshold = portable.project(z, limit, None)
        ours, grad = project_capped_simplex(z, limit), torch.randn(4, length).to(dtype)
        torch.testing.assert_close(ours, alpha, atol=2e-6, rtol=8e-3 if dtype is torch.bfloat16 else 1e-6)
        if dtype is torch.float64:
            (pulled,) = torch.autograd.grad(ours, z, grad)
            torch.testing.assert_close(pulled, portable.project_vjp(grad, z, threshold, None)[0])
for dtype in (torch.float32, torch.float64):
    for length, width in ((3, 1), (20, 13), (70, 40)):
        inputs = torch.randn(2, 2 * length, 6 * width, dtype=dtype, requires_grad=True)
        mask = torch.rand(2, 2 * length) < 0.7
        paths = (attention.attend_others, attention.by_torch)
        attended = [path(inputs, (length, length), 2, mask, None) for path in paths]
        grads = [torch.autograd.grad(result.square().sum(), inputs)[0] for result in attended]
        torch.testing.assert_close(*attended)
        torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)
"""


@pytest.mark.skipif(backend("cpu") != "cpp", reason="no compiled CPU kernels in this installation")
@pytest.mark.parametrize("version", ["baseline", "avx2", "avx512"])
def test_every_version_matches_plain_torch(version: str) -> None:
    environment = {**os.environ, "MULTIFUSE_CPU": version}
    subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, check=True)


@pytest.mark.skipif(backend("cpu") != "cpp", reason="no compiled CPU kernels in this installation")
def test_an_unknown_version_is_refused_by_name() -> None:
    script = "import torch; from multifuse.ops import project_capped_simplex as p; p(torch.rand(2, 3), 1.0)"
    environment = {**os.environ, "MULTIFUSE_CPU": "avx3"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MULTIFUSE_CPU must be avx512, avx2 or baseline, is avx3" in done.stderr
