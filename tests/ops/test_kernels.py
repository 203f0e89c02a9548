"""To be merged: the first into test_attention.py, the second into test_projection.py."""

import pytest
import torch
from torch import Tensor

from multifuse.ops import project_capped_simplex
from multifuse.ops.attention import attend_others, by_torch
from tests.ops.test_attention import definition
from tests.ops.test_projection import differentiable_projection


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_large_scores_neither_overflow_nor_revive_weights_that_have_vanished(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 40, 3 * 2 * 9, generator=generator)
    inputs[..., : 2 * 2 * 9] *= scale  # queries and keys
    expected = definition(inputs, (17, 23), 2, None, None)
    torch.testing.assert_close(attend_others(inputs, (17, 23), 2).double(), expected, atol=1e-2, rtol=0)
    exact = inputs.double().requires_grad_()
    ours = inputs.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(by_torch(exact, (17, 23), 2, None, None).sin().sum(), exact)
    (grad,) = torch.autograd.grad(attend_others(ours, (17, 23), 2).sin().sum(), ours)
    assert grad.isfinite().all()
    assert (grad.double() - wanted).abs().max() < 1e-2 * wanted.abs().max()


@pytest.mark.parametrize("length", [3, 40])
def test_tokens_at_0_and_at_1_receive_no_gradient(length: int, device: torch.device) -> None:
    """They are saturated: alpha stays 0 or 1, and where the budget binds, they are not among those that share it."""
    z = torch.full((2, length), -1.0)
    z[0, :3] = torch.tensor([0.0, 1.0, 0.5])  # slack
    z[1, :3] = torch.tensor([1.25, 0.25, 0.5])  # binds at the threshold 0.25
    budget = torch.tensor([2.0, 1.25])
    grad = torch.tensor([3.0, 5.0, 7.0, *[1.0] * (length - 3)], device=device).expand(2, length)
    expected = torch.zeros(2, length)
    expected[0, 2] = 7.0
    for path in (project_capped_simplex, differentiable_projection):
        inputs: tuple[Tensor, Tensor] = (z.to(device).requires_grad_(), budget.to(device).requires_grad_())
        grad_z, grad_budget = torch.autograd.grad(path(*inputs, None), inputs, grad)
        torch.testing.assert_close(grad_z.cpu(), expected)
        torch.testing.assert_close(grad_budget.cpu(), torch.tensor([0.0, 7.0]))
