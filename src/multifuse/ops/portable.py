"""The projection in plain, vectorised torch: the path of devices without a compiled kernel, and of transforms.

`project` and `project_vjp` compute what the compiled kernels of the same names compute, and are tested against the same
reference. `differentiable_projection` is `project` with derivatives of every order by plain autograd.
"""

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the type that rows are computed in: float32 for half types, otherwise the type itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def active_set(z: Tensor, threshold: Tensor, mask: Tensor | None) -> Tensor:
    """Returns A = {0 < alpha < 1}, decided in the compute type, before alpha is rounded to a half type."""
    shifted = z.to(threshold.dtype) - threshold.unsqueeze(-1)
    active = (shifted > 0) & (shifted < 1)
    return active if mask is None else active & mask


def project(z: Tensor, budget: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns alpha (..., T) and the threshold (...,) of ``alpha = clip(z - threshold, 0, 1)``."""
    dtype = budget.dtype
    # In float32 the sums of a long row would round; devices without float64 (mps) keep the compute type.
    working = dtype if z.device.type == "mps" else torch.float64
    row, budget = z.to(working), budget.to(working)
    row = row if mask is None else row.masked_fill(~mask, 0.0)
    invalid = row.isnan().any(-1) | budget.isnan()
    row = _finite_rows(row)
    threshold = _threshold(row, budget.clamp(min=0.0))
    alpha = (row - threshold.unsqueeze(-1)).clamp(0.0, 1.0)
    alpha = alpha.masked_fill((budget <= 0).unsqueeze(-1), 0.0)
    alpha = alpha.masked_fill(invalid.unsqueeze(-1), float("nan"))
    threshold = threshold.masked_fill(budget <= 0, float("inf")).masked_fill(invalid, float("nan"))
    if mask is not None:
        alpha = alpha.masked_fill(~mask, 0.0)
    return alpha.to(z.dtype), threshold.to(dtype)


def _finite_rows(row: Tensor) -> Tensor:
    """Replaces values that can never be active (<= 0, NaN) by 0, and +inf by a value one above all finite ones."""
    infinite = row == float("inf")
    row = row.nan_to_num(nan=0.0, posinf=0.0).clamp(min=0.0)
    if row.shape[-1] == 0:
        return row
    top = row.amax(-1, keepdim=True).clamp(min=1.0) + 1.0
    return torch.where(infinite, top, row)


def _threshold(row: Tensor, budget: Tensor) -> Tensor:
    """Solves sum clip(row - threshold, 0, 1) = budget: sorts the breakpoints, then solves on the root's piece."""
    if row.shape[-1] == 0:
        return torch.zeros_like(budget)
    budget = budget.unsqueeze(-1)
    total = row.clamp(max=1.0).sum(-1, keepdim=True)
    # A token becomes active where the threshold passes row - 1, and leaves the sum where it passes row.
    points, order = torch.cat([(row - 1.0).clamp(min=0.0), row], dim=-1).sort(dim=-1)
    active = torch.where(order < row.shape[-1], 1.0, -1.0).to(row.dtype).cumsum(-1)
    drop = active[..., :-1] * points.diff(dim=-1)
    value = torch.cat([total, total - drop.cumsum(-1)], dim=-1)
    piece = ((value > budget).sum(-1, keepdim=True) - 1).clamp(0, value.shape[-1] - 2)
    low, high = points.gather(-1, piece), points.gather(-1, piece + 1)
    step = (value.gather(-1, piece) - budget) / active.gather(-1, piece).clamp(min=1.0)
    threshold = torch.minimum(low + step, high)
    for _ in range(2):  # two Newton steps on the row itself remove the rounding of the running sums
        shifted = row - threshold
        inside = ((shifted > 0) & (shifted < 1)).sum(-1, keepdim=True)
        residual = shifted.clamp(0.0, 1.0).sum(-1, keepdim=True) - budget
        threshold = torch.where(inside > 0, threshold + residual / inside.clamp(min=1), threshold).clamp(min=0.0)
    return torch.where(total > budget, threshold, torch.zeros_like(threshold)).squeeze(-1)


def project_vjp(grad: Tensor, z: Tensor, threshold: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns dz and dB: ``1_A (g - mean_A g)`` and ``mean_A g`` where the budget binds, else ``1_A g`` and 0."""
    active = active_set(z, threshold, mask)
    kept = torch.where(active, grad.to(threshold.dtype), 0.0)
    mean = kept.sum(-1) / active.sum(-1).clamp(min=1)
    mean = torch.where(threshold > 0, mean, torch.zeros_like(mean))
    grad_z = torch.where(active, kept - mean.unsqueeze(-1), 0.0)
    invalid = threshold.isnan()
    grad_z = grad_z.masked_fill(invalid.unsqueeze(-1), float("nan"))
    if mask is not None:
        grad_z = grad_z.masked_fill(~mask, 0.0)
    return grad_z.to(z.dtype), mean.masked_fill(invalid, float("nan"))


def differentiable_projection(z: Tensor, budget: Tensor, mask: Tensor | None) -> Tensor:
    """Returns alpha (..., T), with derivatives of every order, in forward mode and in `torch.func`, by autograd.

    Near the solution alpha is linear: one Newton step of the threshold, whose value is 0, carries the derivative.
    """
    alpha, threshold = project(z.detach(), budget.detach(), mask)
    active = active_set(z.detach(), threshold, mask)
    binds = (threshold > 0) & active.any(-1)
    moved = _without_value(z.to(threshold.dtype), active)
    moved_budget = _without_value(budget, binds)
    step = torch.where(binds, (moved.sum(-1) - moved_budget) / active.sum(-1).clamp(min=1), 0.0)
    moved = moved - torch.where(active, step.unsqueeze(-1), 0.0)
    # A row that is NaN has gradients that are NaN: the same rule as for its values.
    invalid = threshold.isnan().unsqueeze(-1).expand(z.shape)
    invalid = invalid if mask is None else invalid & mask
    reached = _without_value(z.to(threshold.dtype), invalid) + _without_value(budget.unsqueeze(-1), invalid)
    factor = torch.where(invalid, float("nan"), 1.0).to(threshold.dtype)
    return alpha + (moved + reached * factor).to(z.dtype)


def _without_value(values: Tensor, where: Tensor) -> Tensor:
    """Returns zeros that have the derivative of ``values`` where it is asked for, and none elsewhere."""
    values = torch.where(where, values, 0.0)
    return values - values.detach()
