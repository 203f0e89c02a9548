"""The kernels of the projection against plain torch, at the lengths where another kernel takes over."""

import pytest
import torch
from torch import Tensor

from multifuse.ops import portable
from multifuse.ops.portable import compute_dtype

# On a GPU, a row of up to 64, 128, 256 or 512 tokens is in the registers of a warp, one of up to 4,096 or 16,384 in
# those of a block (its gradient is read again from memory); on a CPU, 1,024 are summed at a time.
LENGTHS = (64, 65, 128, 129, 256, 257, 512, 513, 1024, 1025, 4096, 4097, 16384, 16385)
TOLERANCES = {torch.float64: 1e-11, torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def rows(length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns rows (9, T) with infinite tokens and NaN, and budgets of every kind (9,)."""
    inf, nan = float("inf"), float("nan")
    z = 2 * torch.randn(9, length)
    z[1, length // 3] = inf
    z[2] = inf
    z[3, length // 2] = -inf
    z[4, -1] = nan
    fractions = torch.tensor([0.2, 0.1, 0.3, 0.2, 0.2, 0.0, inf, nan, 1.0])
    return z.to(dtype), (fractions * length).to(compute_dtype(dtype))


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("length", LENGTHS)
def test_every_kernel_gives_what_plain_torch_gives_and_always_the_same(
    device: torch.device, length: int, dtype: torch.dtype, is_masked: bool
) -> None:
    z, budget = rows(length, dtype)
    mask = torch.rand(z.shape) < 0.7 if is_masked else None
    grad = torch.randn(z.shape).to(dtype)
    on_device = None if mask is None else mask.to(device)

    def computed(threshold: Tensor) -> list[Tensor]:
        """Gradients are computed at a given threshold, so that rounding makes no token active in one of two only."""
        alpha, ours = torch.ops.multifuse.project(z.to(device), budget.to(device), on_device)
        vjp = torch.ops.multifuse.project_vjp(grad.to(device), z.to(device), threshold.to(device), on_device)
        return [values.cpu() for values in (alpha, ours, *vjp)]

    alpha, threshold = portable.project(z, budget, mask)
    expected = [alpha, threshold, *portable.project_vjp(grad, z, threshold, mask)]
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(computed(threshold), expected, atol=tolerance, rtol=tolerance, equal_nan=True)
    torch.testing.assert_close(computed(threshold), computed(threshold), atol=0.0, rtol=0.0, equal_nan=True)
