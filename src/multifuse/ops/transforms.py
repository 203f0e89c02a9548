"""Where compiled ops cannot go, and what they leave to plain torch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from multifuse.ops import native

_IS_COMPILED = native.load("cpu")


def is_transformed() -> bool:
    """Whether forward-mode derivatives, or a transform of `torch.func`, are under way.

    Through an op of `torch.library` a tangent is lost, silently, and `torch.func.grad` does not pass.
    """
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def runs_compiled(tensor: Tensor) -> bool:
    """Whether the compiled op serves a call on this tensor, rather than plain torch."""
    return tensor.device.type == "cpu" and _IS_COMPILED and not is_transformed()


def second_derivative(
    function: Callable[..., Tensor], grad: Tensor, inputs: Sequence[Tensor], pushed: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Pulls ``pushed`` back through the vjp of a function in plain torch, to ``grad`` and the inputs.

    Seldom asked for, so not worth a kernel. Differentiable itself where a graph is asked for.
    """
    creates_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, so that what is asked for ends there, although grad may depend on the inputs.
        tracked = [own.view_as(own) if own.requires_grad else own.detach().requires_grad_() for own in (grad, *inputs)]
        pulled = torch.autograd.grad(function(*tracked[1:]), tracked[1:], tracked[0], create_graph=True)
        known = [(own, push) for own, push in zip(pulled, pushed, strict=True) if push is not None]
        grads = torch.autograd.grad(
            [own for own, _ in known],
            tracked,
            [push for _, push in known],
            create_graph=creates_graph,
            materialize_grads=True,
        )
    return tuple(grads)
