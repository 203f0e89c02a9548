"""Orthonormal frames from unconstrained matrices, by Cholesky QR: the fast parametrisation of StiefelProjector.

Batched QR, LU and eigendecompositions can hang under oneMKL with two threads; a batched Cholesky factorisation and
triangular solves do not, and cost less. The factorisation runs in float64 where the device has it, twice, which leaves
the columns orthonormal to rounding for every matrix whose condition number is below about 1e7.
"""

import torch
from torch import Tensor

from multifuse.precision import without_autocast


def orthonormal_columns(matrix: Tensor, complement_of: Tensor | None = None) -> Tensor:
    """Orthonormalises the columns of matrix (..., d, r), in the orthogonal complement of a frame (..., d, s) if given.

    The result spans what the columns span (after their part in ``complement_of`` is taken out), column k depending on
    the first k columns alone, as in a QR decomposition with positive diagonal.
    """
    frame = matrix
    for _ in range(2):
        if complement_of is not None:
            frame = frame - complement_of @ (complement_of.mT @ frame)
        frame = _cholesky_qr(frame)
    return frame


def _cholesky_qr(matrix: Tensor) -> Tensor:
    column_norm = torch.linalg.vector_norm(matrix, dim=-2, keepdim=True)
    matrix = matrix / column_norm.clamp(min=torch.finfo(matrix.dtype).tiny)
    gram = matrix.mT @ matrix
    # The shift keeps the factor real when columns are dependent to rounding; the second pass takes its effect out.
    shift = 8 * torch.finfo(gram.dtype).eps * gram.shape[-1]
    gram = gram + shift * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky_ex(gram).L
    orthonormal: Tensor = torch.linalg.solve_triangular(factor.mT, matrix, upper=True, left=False)
    return orthonormal


def shared_and_private_frames(shared: Tensor, private: Tensor) -> tuple[Tensor, Tensor]:
    """Turns weights (..., d, r_s) and (..., M, d, r_p) into frames with ``U_sh^T U_pr^m = 0``, in float32 or better."""
    output = torch.promote_types(shared.dtype, torch.float32)
    working = output if shared.device.type == "mps" else torch.float64
    with without_autocast(shared.device):
        shared_frame = orthonormal_columns(shared.to(working))
        private_frames = orthonormal_columns(private.to(working), shared_frame.unsqueeze(-3))
    return shared_frame.to(output), private_frames.to(output)
