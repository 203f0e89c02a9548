"""Orthonormal frames from unconstrained matrices, by Cholesky QR: the fast parametrization of StiefelProjector.

Batched QR, LU and eigendecompositions can hang under oneMKL with two threads; a batched Cholesky factorisation and
triangular solves do not, and cost less. The factorisation runs twice: first in float64, where the device has it, which
makes the columns nearly orthonormal for every matrix whose condition number is below about 1e7; then in the dtype of
the result, which makes them orthonormal to its rounding.
"""

import torch
from torch import Tensor

from multifuse._internal.cholesky import inverse_factor
from multifuse._internal.precision import without_autocast


def orthonormal_columns(matrix: Tensor) -> Tensor:
    """Orthonormalises the columns of matrix (..., d, r), in float32 or better.

    Column k depends on the first k columns alone, as in a QR decomposition with positive diagonal.
    """
    with without_autocast(matrix.device):
        return _refined(_nearly(matrix.to(_working(matrix))).to(_output(matrix)))


def shared_and_private_frames(shared: Tensor, private: Tensor) -> tuple[Tensor, Tensor]:
    """Turns weights (..., d, r_s) and (..., M, d, r_p) into frames with ``U_sh^T U_pr^m = 0``, in float32 or better."""
    with without_autocast(shared.device):
        near = _nearly(shared.to(_working(shared)))
        privates = _nearly(_outside(near, private.to(near.dtype)))
        frame = _refined(near.to(_output(shared)))
        return frame, _refined(_outside(frame, privates.to(frame.dtype)))


def _output(matrix: Tensor) -> torch.dtype:
    return torch.promote_types(matrix.dtype, torch.float32)


def _working(matrix: Tensor) -> torch.dtype:
    return _output(matrix) if matrix.device.type == "mps" else torch.float64


def _outside(frame: Tensor, matrices: Tensor) -> Tensor:
    """Projects the columns of (..., M, d, r) onto the complement of a frame (..., d, s), in one product."""
    count, _, rank = matrices.shape[-3:]
    columns = matrices.movedim(-3, -2).flatten(-2)
    columns = columns - frame @ (frame.mT @ columns)
    outside: Tensor = columns.unflatten(-1, (count, rank)).movedim(-2, -3)
    return outside


def _nearly(matrix: Tensor) -> Tensor:
    """Runs the first pass; the shift keeps the factor real where columns are dependent to rounding."""
    return _cholesky_qr(matrix, 8 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps)


def _refined(matrix: Tensor) -> Tensor:
    """Runs the second pass, which removes the shift and the rounding of the first."""
    return _cholesky_qr(matrix, torch.finfo(matrix.dtype).eps)


def _cholesky_qr(matrix: Tensor, shift: float) -> Tensor:
    gram = matrix.mT @ matrix
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(gram.dtype).tiny).rsqrt().unsqueeze(-1)
    gram = gram * scale * scale.mT + shift * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return matrix @ (inverse_factor(gram).mT * scale)
