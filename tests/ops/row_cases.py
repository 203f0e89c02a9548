"""Rows for the kernels of the projection and what plain torch gives: infinite tokens, NaN and budgets of every kind."""

from typing import NamedTuple

import torch
from torch import Tensor

from multifuse.ops import portable
from multifuse.ops.portable import compute_dtype

TOLERANCES = {torch.float64: 1e-11, torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class RowCase(NamedTuple):
    """Inputs of ``project`` and of ``project_vjp``, and their four results."""

    z: Tensor
    budget: Tensor
    grad: Tensor
    threshold: Tensor
    """The gradients' threshold, not the computed one: rounding could make a token active in one of the two only."""
    mask: Tensor | None
    expected: tuple[Tensor, Tensor, Tensor, Tensor]
    """alpha, threshold, grad_z, grad_budget"""

    def check(self, results: tuple[Tensor, ...]) -> None:
        tolerance = TOLERANCES[self.z.dtype]
        torch.testing.assert_close(results, self.expected, atol=tolerance, rtol=tolerance, equal_nan=True)


def row_case(length: int, dtype: torch.dtype, is_masked: bool) -> RowCase:
    """Returns nine rows of ``length`` tokens."""
    inf, nan = float("inf"), float("nan")
    z = 2 * torch.randn(9, length)
    z[1, length // 3] = inf
    z[2] = inf
    z[3, length // 2] = -inf
    z[4, -1] = nan
    z = z.to(dtype)
    fractions = torch.tensor([0.2, 0.1, 0.3, 0.2, 0.2, 0.0, inf, nan, 1.0])
    budget = (fractions * length).to(compute_dtype(dtype))
    mask = torch.rand(z.shape) < 0.7 if is_masked else None
    grad = torch.randn(z.shape).to(dtype)
    alpha, threshold = portable.project(z, budget, mask)
    grad_z, grad_budget = portable.project_vjp(grad, z, threshold, mask)
    return RowCase(z, budget, grad, threshold, mask, (alpha, threshold, grad_z, grad_budget))
