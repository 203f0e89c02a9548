"""The Euclidean projection onto the capped simplex, as a function and as an operator of torch.

Two operators are registered: ``multifuse::project(z, budget, mask) -> (alpha, threshold)`` and its backward,
``multifuse::project_vjp(grad, z, threshold, mask) -> (grad_z, grad_budget)``. ``budget`` and ``threshold`` have z's
leading shape and the compute type (float32 for half types). The functions of `multifuse.ops.portable` are their kernels
on every device; the compiled kernels replace them on a device once their library is loaded.
"""

from typing import Any

import torch
from torch import Tensor

from multifuse.ops import portable
from multifuse.ops.library import LIBRARY
from multifuse.ops.portable import compute_dtype
from multifuse.ops.rows import Rows, checked_rows, moved_back
from multifuse.ops.transforms import is_standard, is_transformed, pulled_back


def project_capped_simplex(z: Tensor, budget: Tensor | float, mask: Tensor | None = None, *, dim: int = -1) -> Tensor:
    r"""Solves, for every row of ``z`` along ``dim``,

    .. math:: \min_\alpha \|\alpha - z\|_2^2 \quad\text{subject to}\quad 0 \le \alpha_t \le 1,\ \sum_t \alpha_t \le B .

    The solution is ``clip(z - threshold, 0, 1)``. The threshold is 0 where the budget is slack; otherwise it is the
    root of ``sum clip(z - threshold, 0, 1) = B``, found exactly by a bracketed Newton iteration on the linear pieces.

    Args:
        z: (..., T), or with T at ``dim``; float16, bfloat16 (both computed in float32), float32 or float64. ``-inf`` is
            a masked token. ``+inf`` counts as a value one above all finite ones and receives no gradient. NaN in a
            valid token makes its own row NaN, and no other row.
        budget: B, a number, or a tensor with one number per row: of the shape of ``z`` without ``dim``, or with size 1
            at ``dim``, or one that broadcasts to the shape without ``dim``. ``B <= 0`` gives zeros.
        mask: broadcasts to ``z.shape``; True or 1 = real token, False or 0 = padding. Padding gets exactly 0.
        dim: the dimension of the tokens, over which alpha is summed.

    Returns:
        alpha, with the shape and dtype of ``z``. Differentiable in ``z`` and ``budget``, to every order. With
        A = {0 < alpha < 1}: where the budget binds, ``dz = 1_A (g - mean_A g)`` and ``dB = mean_A g``; where it is
        slack, ``dz = 1_A g`` and ``dB = 0``.

    Raises:
        TypeError: ``z`` is not a tensor of one of the four floating types.
        ValueError: ``z`` has no ``dim``, ``budget`` is not a real number or tensor, ``budget`` or ``mask`` does not
            broadcast, ``mask`` is on another device or holds other values.

    Source: CLCR (arXiv 2602.19605), the projection onto the truncated simplex in IntraCED's token budget.

    Example:
        >>> project_capped_simplex(torch.tensor([0.9, 0.5, 0.1]), budget=1.0)
        tensor([0.7000, 0.3000, 0.0000])
    """
    return moved_back(projected(checked_rows(z, budget, mask, dim)), dim)


def projected(rows: Rows) -> Tensor:
    """Projects rows that have been checked, by the path that serves their device and the transforms around the call."""
    if is_transformed():
        return portable.differentiable_projection(*rows)
    if is_standard():
        return portable.project(*rows)[0]
    alpha: Tensor = _project(*rows)[0]
    return alpha


LIBRARY.impl("project", portable.project, "CompositeExplicitAutograd")
LIBRARY.impl("project_vjp", portable.project_vjp, "CompositeExplicitAutograd")
_project = torch.ops.multifuse.project.default
_project_vjp = torch.ops.multifuse.project_vjp.default


def _check_rows(z: Tensor, per_row: Tensor, mask: Tensor | None) -> None:
    expected = compute_dtype(z.dtype)
    torch._check(z.is_floating_point(), lambda: f"z must be floating point, got {z.dtype}")
    torch._check(
        per_row.shape == z.shape[:-1],
        lambda: f"budget must have shape {tuple(z.shape[:-1])}, got {tuple(per_row.shape)}",
    )
    torch._check(
        per_row.dtype == expected, lambda: f"budget must be {expected} for z of {z.dtype}, got {per_row.dtype}"
    )
    if mask is not None:
        torch._check(mask.shape == z.shape, lambda: f"mask must have shape {tuple(z.shape)}, got {tuple(mask.shape)}")


@torch.library.register_fake("multifuse::project", lib=LIBRARY)
def _project_fake(z: Tensor, budget: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    _check_rows(z, budget, mask)
    return z.new_empty(z.shape), budget.new_empty(budget.shape)


@torch.library.register_fake("multifuse::project_vjp", lib=LIBRARY)
def _project_vjp_fake(grad: Tensor, z: Tensor, threshold: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    _check_rows(z, threshold, mask)
    return z.new_empty(z.shape), threshold.new_empty(threshold.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    z, _, mask = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(z, output[1], mask)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    z, threshold, mask = ctx.saved_tensors
    return (*_project_vjp(grad, z, threshold, mask), None)


def _save_vjp(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _vjp_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    grad, z, threshold, mask = ctx.saved_tensors
    # The backward is linear in its first argument, and constant in the others.
    (pulled,) = pulled_back(lambda grad: portable.project_vjp(grad, z, threshold, mask), [grad], grads)
    return pulled, None, None, None


torch.library.register_autograd("multifuse::project", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("multifuse::project_vjp", _vjp_backward, setup_context=_save_vjp, lib=LIBRARY)
