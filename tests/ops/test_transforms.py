"""Properties of all compiled ops: forward mode, `torch.func`, third derivatives, and sequences without tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from multifuse import IntraCED, TemporalConvLevels
from multifuse.ops import project_capped_simplex, soft_topk
from multifuse.ops.attention import attend_others

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "project": lambda values: project_capped_simplex(values, 0.8),
    "soft_topk": lambda values: soft_topk(values, 1.5, temperature=0.8),
    "attend_others": lambda values: attend_others(values, (2, 3), 1),
}


@pytest.fixture(params=list(FUNCTIONS))
def loss(request: pytest.FixtureRequest) -> Callable[[Tensor], Tensor]:
    function = FUNCTIONS[request.param]

    def scalar(values: Tensor) -> Tensor:
        result = function(values)
        return (result * torch.arange(1.0, 4.0, device=values.device)[: result.shape[-1]]).sin().sum()

    return scalar


@pytest.fixture
def inputs(device: torch.device) -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(device)


def test_forward_mode_and_torch_func_match_the_gradient(loss: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    direction = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(inputs)
    leaf = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    slope = (gradient * direction).sum()
    torch.testing.assert_close(torch.func.grad(loss)(inputs), gradient)
    torch.testing.assert_close(torch.func.jvp(loss, (inputs,), (direction,))[1], slope)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(inputs, direction))).tangent
    torch.testing.assert_close(tangent, slope)
    several = torch.vmap(torch.func.grad(loss))(torch.stack([inputs, 2 * inputs]))
    torch.testing.assert_close(several[0], gradient)


def test_compiled_transforms_give_what_they_give_uncompiled(loss: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    """In a compiled function tangents were lost in silence."""
    torch._dynamo.reset()
    direction = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(inputs)

    def slope(values: Tensor) -> Tensor:
        tangent: Tensor = torch.func.jvp(loss, (values,), (direction,))[1]
        return tangent

    compiled = torch.compile(slope, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs), slope(inputs))
    gradient = torch.compile(torch.func.grad(loss), backend="aot_eager")
    torch.testing.assert_close(gradient(inputs), torch.func.grad(loss)(inputs))


def test_torch_func_hessians_match_autograd(loss: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    hessian = torch.func.hessian(loss)(inputs[:1])
    expected = torch.autograd.functional.hessian(loss, inputs[:1])  # type: ignore[no-untyped-call]
    torch.testing.assert_close(hessian, expected)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_third_derivatives_are_not_dropped(name: str, inputs: Tensor) -> None:
    def second(values: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(FUNCTIONS[name](values).sin().sum(), values, create_graph=True)
        (curvature,) = torch.autograd.grad(gradient.sin().sum(), values, create_graph=True)
        return curvature.sin().sum()

    leaf = inputs[:1].clone().requires_grad_()
    (third,) = torch.autograd.grad(second(leaf), leaf)
    step = torch.zeros_like(leaf)
    step[0, 1, 2] = 1e-6
    difference = (second(leaf + step) - second(leaf - step)) / 2e-6
    torch.testing.assert_close(third[0, 1, 2], difference.detach(), atol=1e-5, rtol=1e-4)


def test_empty_sequences_give_parameters_no_gradient_from_uninitialised_memory() -> None:
    junk = [torch.full((7, 4, 64), 1e3) for _ in range(20)]
    del junk
    levels = TemporalConvLevels(5, 8, 1)
    sum(level.sum() for level in levels(torch.randn(7, 0, 5))).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in levels.stages.parameters())
    layer = IntraCED(8, ("one", "none"), shared_rank=4, private_rank=2, num_heads=2)
    output = layer({"one": torch.randn(7, 3, 8), "none": torch.randn(7, 0, 8)})
    sum(stream.square().sum() for stream in output.tokens.values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in layer.budget.parameters())


def test_an_exported_layer_accepts_other_token_counts() -> None:
    layer = IntraCED(8, ("one", "other"), shared_rank=4, private_rank=2, num_heads=2).eval()
    tokens = {"one": torch.randn(3, 5, 8), "other": torch.randn(3, 6, 8)}
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch, 1: torch.export.Dim(name)} for name in tokens}
    exported = torch.export.export(layer, (tokens,), dynamic_shapes=(shapes,))
    others = {"one": torch.randn(2, 9, 8), "other": torch.randn(2, 4, 8)}
    torch.testing.assert_close(exported.module()(others).tokens, layer(others).tokens)
