"""Frames: those of a QR decomposition, orthonormal for nearly dependent columns, with derivatives of both orders."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from multifuse.layers.frames import orthonormal_columns, shared_and_private_frames


def with_condition(number: float, rows: int = 40, columns: int = 12) -> Tensor:
    left, right = (torch.linalg.qr(torch.randn(size, columns, dtype=torch.float64))[0] for size in (rows, columns))
    matrix: Tensor = (
        left * torch.logspace(0, -torch.log10(torch.tensor(number)), columns, dtype=torch.float64) @ right.mT
    )
    return matrix


def test_the_frame_is_that_of_a_qr_decomposition() -> None:
    matrix = torch.randn(3, 8, 4)
    expected, factor = torch.linalg.qr(matrix)
    expected = expected * factor.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    torch.testing.assert_close(orthonormal_columns(matrix), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("condition", [1e2, 1e5, 1e7])
def test_frames_of_nearly_dependent_columns_are_orthonormal(condition: float) -> None:
    torch.manual_seed(0)
    shared, private = with_condition(condition).float(), with_condition(condition).float().expand(2, -1, -1)
    frame, privates = shared_and_private_frames(shared, private + 0.1 * torch.randn(2, 40, 12))
    identity = torch.eye(12)
    assert (frame.mT @ frame - identity).abs().max() < 1e-5
    assert (privates.mT @ privates - identity).abs().max() < 1e-5
    assert (frame.mT @ privates).abs().max() < 1e-5


def test_derivatives_of_the_first_and_second_order_are_correct() -> None:
    matrix = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(orthonormal_columns, matrix, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(orthonormal_columns, matrix)
    private = torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(shared_and_private_frames, (matrix[0].detach().requires_grad_(), private))


def test_the_gradient_of_nearly_dependent_float32_columns_is_as_exact_as_their_values() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(20, 4)
    matrix[:, 1] = matrix[:, 0] + 1e-4 * matrix[:, 1]
    weight = torch.randn(20, 4)
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaf = matrix.to(dtype, copy=True).requires_grad_()
        (orthonormal_columns(leaf) * weight.to(dtype)).sum().backward()
        assert leaf.grad is not None
        grads.append(leaf.grad.double())
    assert (grads[0] - grads[1]).abs().max() < 1e-5 * grads[1].abs().max()
