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


def _over_rows(op: Any, outputs: int) -> Any:
    """A batching rule: rows are independent, so a batch dimension is one more leading dimension."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Tensor | None) -> tuple[Any, Any]:
        moved = [_leading(arg, dim, info.batch_size) for arg, dim in zip(args, in_dims, strict=True)]
        return op(*moved), (0,) * outputs if outputs > 1 else 0

    return rule


def _leading(tensor: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    if tensor is None:
        return None
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


torch.library.register_vmap("multifuse::project", _over_rows(project, 2), lib=LIBRARY)
torch.library.register_vmap("multifuse::project_vjp", _over_rows(project_vjp, 2), lib=LIBRARY)
torch.library.register_vmap("multifuse::project_jvp", _over_rows(project_jvp, 1), lib=LIBRARY)


class Projection(torch.autograd.Function):
    """`project` with all its derivatives, also where `torch.library` passes none: forward mode and `torch.func`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, budget: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        alpha, threshold = project(z, budget, mask)
        return alpha, threshold

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        z, _, mask = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(z, output[1], mask)
        ctx.save_for_forward(z, output[1], mask)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold, mask = ctx.saved_tensors
        grad_z, grad_budget = _Vjp.apply(grads[0], z, threshold, mask)  # type: ignore[no-untyped-call]
        return grad_z, grad_budget, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None]:
        z, threshold, mask = ctx.saved_tensors
        of_z, of_budget = (
            torch.zeros_like(like) if own is None else own for own, like in zip(tangents, (z, threshold))
        )
        return _Jvp.apply(of_z, of_budget, z, threshold, mask), None  # type: ignore[no-untyped-call]


class _Vjp(torch.autograd.Function):
    """`project_vjp`, linear in its first argument, whose transpose is `project_jvp`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, z: Tensor, threshold: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        grad_z, grad_budget = project_vjp(grad, z, threshold, mask)
        return grad_z, grad_budget

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        pushed: Tensor = _Jvp.apply(*grads, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return pushed, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:
        z, threshold, mask = ctx.saved_tensors
        tangent = torch.zeros_like(z) if tangents[0] is None else tangents[0]
        pulled: tuple[Tensor, Tensor] = _Vjp.apply(tangent, z, threshold, mask)  # type: ignore[no-untyped-call]
        return pulled


class _Jvp(torch.autograd.Function):
    """`project_jvp`, linear in its first two arguments, whose transpose is `project_vjp`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(of_z: Tensor, of_budget: Tensor, z: Tensor, threshold: Tensor, mask: Tensor | None) -> Tensor:
        pushed: Tensor = project_jvp(of_z, of_budget, z, threshold, mask)
        return pushed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])
        ctx.save_for_forward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_z, of_budget = _Vjp.apply(grads[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return of_z, of_budget, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        z, threshold, mask = ctx.saved_tensors
        of_z, of_budget = (
            torch.zeros_like(like) if own is None else own for own, like in zip(tangents, (z, threshold))
        )
        pushed: Tensor = _Jvp.apply(of_z, of_budget, z, threshold, mask)  # type: ignore[no-untyped-call]
        return pushed
