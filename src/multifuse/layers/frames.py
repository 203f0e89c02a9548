"""Orthonormal frames from unconstrained matrices, by Cholesky QR: the fast parametrization of StiefelProjector.

Batched QR, LU and eigendecompositions can hang under oneMKL with two threads; a batched Cholesky factorisation and
triangular solves do not, and cost less. The factorisation runs twice, in float64 where the device has it: the first
pass makes the columns nearly orthonormal for every matrix whose condition number is below about 1e7, and the second
makes them orthonormal to rounding.
"""

from typing import Any

import torch
from torch import Tensor

from multifuse._internal.precision import at_least_float32, precise, without_autocast


def orthonormal_columns(matrix: Tensor) -> Tensor:
    """Orthonormalises the columns of matrix (..., d, r), in float32 or better.

    Column k depends on the first k columns alone, as in a QR decomposition with positive diagonal.
    """
    with without_autocast(matrix.device):
        return _orthonormal(_working(matrix)).to(_output(matrix))


def shared_and_private_frames(shared: Tensor, private: Tensor) -> tuple[Tensor, Tensor]:
    """Turns weights (..., d, r_s) and (..., M, d, r_p) into frames with ``U_sh^T U_pr^m = 0``, in float32 or better.

    ``[U_sh, U_pr^m]`` is the frame of ``[A_sh, A_pr^m]``, whose first r_s columns are the same for every m.
    """
    with without_autocast(shared.device):
        rank = shared.shape[-1]
        repeated = shared.unsqueeze(-3).expand(*private.shape[:-1], rank)
        frames = _orthonormal(_working(torch.cat([repeated, private], dim=-1))).to(_output(shared))
        return frames[..., 0, :, :rank], frames[..., rank:]


def _orthonormal(matrix: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # torch.compile does not trace an autograd.Function with a jvp
        return _cholesky_qr(matrix)
    frame: Tensor = _Orthonormal.apply(matrix)  # type: ignore[no-untyped-call]
    return frame


class _Orthonormal(torch.autograd.Function):
    """``Q`` of ``A = Q R``, with the derivatives of a QR decomposition instead of those of its two passes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        return _cholesky_qr(matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        matrix, frame = ctx.saved_tensors
        with without_autocast(frame.device):
            moved = _right_divided(tangents[0], frame.mT @ matrix)
            along = frame.mT @ moved
            pushed: Tensor = moved - frame @ (along.triu() + along.mT.triu(1))
            return pushed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        matrix, frame = ctx.saved_tensors
        with without_autocast(frame.device):
            lower = (grads[0].mT @ frame).tril()
            outside = grads[0] - frame @ (lower + lower.tril(-1).mT)
            factor = matrix.mT @ frame  # R^T, from what was saved: differentiable once more
            pulled: Tensor = torch.linalg.solve_triangular(factor, outside, upper=False, left=False)
            return pulled


def _right_divided(matrix: Tensor, factor: Tensor) -> Tensor:
    """Returns ``matrix R^{-1}`` for an upper triangular R."""
    divided: Tensor = torch.linalg.solve_triangular(factor, matrix, upper=True, left=False)
    return divided


def _cholesky_qr(matrix: Tensor) -> Tensor:
    """Orthonormalises in two passes; the second removes the shift and the rounding of the first."""
    norms = torch.linalg.vector_norm(matrix, dim=-2, keepdim=True)
    return _pass(_pass(matrix / norms.clamp(min=torch.finfo(norms.dtype).tiny), 8 * matrix.shape[-1]), 1)


def _pass(matrix: Tensor, shift: int) -> Tensor:
    """Runs one pass on columns of length 1; the shift keeps the factor real where they are dependent to rounding."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    gram = torch.add(matrix.mT @ matrix, identity, alpha=shift * torch.finfo(matrix.dtype).eps)
    return _right_divided(matrix, torch.linalg.cholesky_ex(gram, upper=True).L)


def _output(matrix: Tensor) -> torch.dtype:
    return torch.promote_types(matrix.dtype, torch.float32)


def _working(matrix: Tensor) -> Tensor:
    return precise(at_least_float32(matrix))
