"""The Euclidean projection onto the capped simplex, as a function."""

import torch
from torch import Tensor

from multifuse.ops import registration
from multifuse.ops.portable import compute_dtype
from multifuse.ops.transforms import is_transformed

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def project_capped_simplex(z: Tensor, budget: Tensor | float, mask: Tensor | None = None) -> Tensor:
    r"""Solves, for every row of ``z``,

    .. math:: \min_\alpha \|\alpha - z\|_2^2 \quad\text{subject to}\quad 0 \le \alpha_t \le 1,\ \sum_t \alpha_t \le B .

    The solution is ``clip(z - threshold, 0, 1)``; the threshold is 0 where the budget is slack, and else the root of
    ``sum clip(z - threshold, 0, 1) = B``, found exactly by a bracketed Newton iteration on the linear pieces.

    Args:
        z: (..., T), float16, bfloat16 (both computed in float32), float32 or float64. ``-inf`` is a masked token,
            ``+inf`` counts as a value one above all finite ones, and takes no gradient. NaN in a valid token makes its
            own row NaN and no other.
        budget: B, a number, or a tensor that broadcasts to ``z.shape[:-1]``. ``B <= 0`` gives zeros.
        mask: bool, broadcasts to ``z.shape``; True = real token. Masked positions get exactly 0.

    Returns:
        alpha, the shape and dtype of ``z``. Differentiable in ``z`` and ``budget``, to every order. With
        A = {0 < alpha < 1}, where the budget binds ``dz = 1_A (g - mean_A g)`` and ``dB = mean_A g``; where it is
        slack ``dz = 1_A g`` and ``dB = 0``.

    Raises:
        TypeError: ``z`` is not one of the four floating types, or ``mask`` is not bool.
        ValueError: ``budget`` or ``mask`` does not broadcast, or ``mask`` is on another device.

    Source: CLCR (arXiv 2602.19605), the projection onto the truncated simplex in IntraCED's token budget.
    """
    if z.dtype not in _FLOATING:
        raise TypeError(f"z must be float16, bfloat16, float32 or float64, got {z.dtype}")
    if z.ndim == 0:
        raise ValueError("z must have at least one dimension (..., T), got a scalar tensor")
    rows = z.shape[:-1]
    dtype = compute_dtype(z.dtype)
    if not isinstance(budget, Tensor):
        budget = torch.full(rows, float(budget), dtype=dtype, device=z.device)
    elif budget.dtype != dtype or budget.device != z.device:
        budget = budget.to(device=z.device, dtype=dtype)
    if budget.shape != rows:
        budget = _broadcast("budget", budget, rows)
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool (True = real token), got {mask.dtype}")
        if mask.device != z.device:
            raise ValueError(f"mask must be on z's device {z.device}, is on {mask.device}")
        if mask.shape != z.shape:
            mask = _broadcast("mask", mask, z.shape)
    project = registration.Projection.apply if is_transformed() else registration.project
    alpha: Tensor = project(z, budget, mask)[0]  # type: ignore[no-untyped-call]
    return alpha


def _broadcast(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    try:
        return tensor.expand(shape)
    except RuntimeError:
        raise ValueError(f"{name} of shape {tuple(tensor.shape)} does not broadcast to {tuple(shape)}") from None
