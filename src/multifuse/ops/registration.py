"""Registers the projection with torch: fake kernels, derivatives, batching rules, and the portable kernels.

Three ops, each linear map beside its transpose, so that derivatives of every order close:

- ``multifuse::project(z, budget, mask) -> (alpha, threshold)``, the projection;
- ``multifuse::project_vjp(grad, z, threshold, mask) -> (grad_z, grad_budget)``, its backward;
- ``multifuse::project_jvp(tangent_z, tangent_budget, z, threshold, mask) -> tangent_alpha``, the backward's backward.

``budget`` and ``threshold`` have z's leading shape and the compute type (float32 for half types). The compiled kernels
replace the portable ones on their device when their library is loaded.
"""

from typing import Any

import torch
from torch import Tensor

from multifuse.ops import portable
from multifuse.ops.batching import over_rows
from multifuse.ops.library import LIBRARY

LIBRARY.impl("project", portable.project, "CompositeExplicitAutograd")
LIBRARY.impl("project_vjp", portable.project_vjp, "CompositeExplicitAutograd")
LIBRARY.impl("project_jvp", portable.project_jvp, "CompositeExplicitAutograd")

project = torch.ops.multifuse.project.default
project_vjp = torch.ops.multifuse.project_vjp.default
project_jvp = torch.ops.multifuse.project_jvp.default


def _check_row(z: Tensor, per_row: Tensor, mask: Tensor | None) -> None:
    torch._check(z.is_floating_point(), lambda: f"z must be floating point, got {z.dtype}")
    torch._check(
        per_row.shape == z.shape[:-1],
        lambda: f"budget must have shape {tuple(z.shape[:-1])}, got {tuple(per_row.shape)}",
    )
    torch._check(
        per_row.dtype == portable.compute_dtype(z.dtype),
        lambda: f"budget must be {portable.compute_dtype(z.dtype)} for z of {z.dtype}, got {per_row.dtype}",
    )
    if mask is not None:
        torch._check(mask.shape == z.shape, lambda: f"mask must have shape {tuple(z.shape)}, got {tuple(mask.shape)}")


@torch.library.register_fake("multifuse::project", lib=LIBRARY)
def _project_fake(z: Tensor, budget: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    _check_row(z, budget, mask)
    return z.new_empty(z.shape), budget.new_empty(budget.shape)


@torch.library.register_fake("multifuse::project_vjp", lib=LIBRARY)
def _project_vjp_fake(grad: Tensor, z: Tensor, threshold: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    _check_row(z, threshold, mask)
    return z.new_empty(z.shape), threshold.new_empty(threshold.shape)


@torch.library.register_fake("multifuse::project_jvp", lib=LIBRARY)
def _project_jvp_fake(
    tangent_z: Tensor, tangent_budget: Tensor, z: Tensor, threshold: Tensor, mask: Tensor | None
) -> Tensor:
    _check_row(z, threshold, mask)
    return z.new_empty(z.shape)


def _save_projection(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    z, _, mask = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(z, output[1], mask)


def _project_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    z, threshold, mask = ctx.saved_tensors
    grad_z, grad_budget = project_vjp(grad, z, threshold, mask)
    return grad_z, grad_budget, None


def _save_vjp(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, z, threshold, mask = inputs
    ctx.save_for_backward(z, threshold, mask)


def _vjp_backward(ctx: Any, grad_z: Tensor, grad_budget: Tensor) -> tuple[Tensor, None, None, None]:
    z, threshold, mask = ctx.saved_tensors
    return project_jvp(grad_z, grad_budget, z, threshold, mask), None, None, None


def _save_jvp(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, z, threshold, mask = inputs
    ctx.save_for_backward(z, threshold, mask)


def _jvp_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    z, threshold, mask = ctx.saved_tensors
    grad_tangent, grad_budget = project_vjp(grad, z, threshold, mask)
    return grad_tangent, grad_budget, None, None, None


torch.library.register_autograd("multifuse::project", _project_backward, setup_context=_save_projection, lib=LIBRARY)
torch.library.register_autograd("multifuse::project_vjp", _vjp_backward, setup_context=_save_vjp, lib=LIBRARY)
torch.library.register_autograd("multifuse::project_jvp", _jvp_backward, setup_context=_save_jvp, lib=LIBRARY)


torch.library.register_vmap("multifuse::project", over_rows(project, 2), lib=LIBRARY)
torch.library.register_vmap("multifuse::project_vjp", over_rows(project_vjp, 2), lib=LIBRARY)
torch.library.register_vmap("multifuse::project_jvp", over_rows(project_jvp, 1), lib=LIBRARY)
