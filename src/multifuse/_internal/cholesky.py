"""The inverse Cholesky factor of a batch of matrices, the basis of whitening."""

from typing import Any

import torch
from torch import Tensor


class _InverseFactor(torch.autograd.Function):
    """``W = L^{-1}``, with derivatives by matrix products only, where autograd would take four triangular solves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        return _by_torch(matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        pushed: Tensor = -_half_lower(inverse @ tangents[0] @ inverse.mT) @ inverse
        return pushed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        product = grads[0] @ inverse.mT
        symmetric = product.tril() + product.tril(-1).mT
        pulled: Tensor = inverse.mT @ (-0.5 * symmetric) @ inverse
        return pulled


def _by_torch(matrix: Tensor) -> Tensor:
    factor = torch.linalg.cholesky_ex(matrix).L
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return inverse


def _half_lower(matrix: Tensor) -> Tensor:
    """Returns the lower triangle with its diagonal halved."""
    return matrix.tril() - 0.5 * torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))


def inverse_factor(matrix: Tensor) -> Tensor:
    """Computes ``W = L^{-1}`` of symmetric positive definite matrices ``L L^T`` (..., r, r), lower triangular.

    ``W matrix W^T = I``. A batched Cholesky factorisation and triangular solves cannot hang where other batched
    factorisations do (oneMKL with two threads).
    """
    if torch.compiler.is_compiling():  # torch.compile does not trace an autograd.Function with a jvp
        return _by_torch(matrix)
    inverse: Tensor = _InverseFactor.apply(matrix)  # type: ignore[no-untyped-call]
    return inverse
