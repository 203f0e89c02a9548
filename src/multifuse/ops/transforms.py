"""When a compiled operator must leave the work to plain torch, and the second derivatives that plain torch computes.

Through an operator of `torch.library`, forward-mode tangents are lost silently and `torch.func.grad` does not pass. So
every op of this library runs its plain-torch path there, with derivatives by autograd. Second derivatives of the
compiled operators are rarely asked for, and are those of the plain path as well.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad

from multifuse.ops import native

_IS_COMPILED = native.load("cpu")
_is_standard = False


def is_transformed() -> bool:
    """Tells whether forward-mode differentiation or a transform of `torch.func` is active, compiled or not."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def runs_compiled(tensor: Tensor) -> bool:
    """Tells whether the compiled CPU operator handles a call on this tensor, rather than plain torch."""
    return tensor.device.type == "cpu" and _IS_COMPILED and not is_transformed() and not _is_standard


@contextmanager
def standard_operators() -> Iterator[None]:
    """Lets every op run plain torch without derivatives: programs exported in the scope need no operator of ours."""
    global _is_standard
    before, _is_standard = _is_standard, True
    try:
        yield
    finally:
        _is_standard = before


def is_standard() -> bool:
    """Tells whether `standard_operators` is in force."""
    return _is_standard


def pulled_back(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Computes the gradients of ``inputs`` from those of ``function(*inputs)``, a function in plain torch.

    The result is differentiable itself where a graph is being recorded.
    """
    creates_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases end the graph here, although one input may depend on another.
        tracked = [value.view_as(value) if value.requires_grad else value.detach().requires_grad_() for value in inputs]
        known = [(output, grad) for output, grad in zip(function(*tracked), grads, strict=True) if grad is not None]
        outputs, output_grads = zip(*known, strict=True)
        return torch.autograd.grad(outputs, tracked, output_grads, create_graph=creates_graph, materialize_grads=True)
