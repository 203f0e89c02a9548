"""`convolve_gelu`, compiled and by torch: against torch's Conv1d, masks, derivatives, what torch asks of an op."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv1d, gelu

from multifuse.ops.convolution import by_torch, convolve_gelu


class Inputs(NamedTuple):
    tokens: Tensor
    weight: Tensor
    bias: Tensor

    def to(self, dtype: torch.dtype) -> "Inputs":
        return Inputs(*(own.detach().to(dtype).requires_grad_() for own in self))


def definition(tokens: Tensor, weight: Tensor, bias: Tensor, dilation: int, mask: Tensor | None) -> Tensor:
    tokens = tokens if mask is None else tokens * mask.unsqueeze(-1)
    convolved = conv1d(tokens.mT, weight.unsqueeze(1), bias, padding=dilation, dilation=dilation, groups=len(bias))
    return gelu(convolved).mT


def drawn(seed: int, length: int, channels: int, masked: bool) -> tuple[Inputs, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, length, channels), (channels, 3), (channels,))
    inputs = Inputs(*(2 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))
    return inputs, torch.rand(2, length, generator=generator) < 0.6 if masked else None


@given(st.integers(1, 40), st.integers(1, 37), st.integers(1, 33), st.booleans(), st.integers(0, 9))
@settings(max_examples=40)
def test_is_torchs_dilated_convolution_and_gelu_with_their_gradients(
    length: int, channels: int, dilation: int, masked: bool, seed: int
) -> None:
    inputs, mask = drawn(seed, length, channels, masked)
    exact = inputs.to(torch.float64)
    expected = definition(*exact, dilation, mask)
    grad = torch.randn(expected.shape, dtype=torch.float64)
    expected_grads = torch.autograd.grad(expected, exact, grad)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        for function in (convolve_gelu, by_torch):
            own = inputs.to(dtype)
            ours = function(*own, dilation, mask)
            assert (ours - expected).abs().max() <= bound * max(1.0, float(expected.detach().abs().max()))
            for mine, theirs in zip(torch.autograd.grad(ours, own, grad.to(dtype)), expected_grads, strict=True):
                assert (mine - theirs).abs().max() <= bound * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32_and_parameters_follow_the_tokens_type(dtype: torch.dtype) -> None:
    inputs, mask = drawn(0, 9, 20, True)
    halves = inputs.to(dtype)
    expected = convolve_gelu(*halves.to(torch.float32), 2, mask).to(dtype)
    assert torch.equal(convolve_gelu(*halves, 2, mask), expected)
    assert torch.equal(convolve_gelu(halves.tokens, inputs.weight, inputs.bias, 2, mask), expected)


def test_first_and_second_derivatives_are_correct() -> None:
    inputs, mask = drawn(1, 5, 2, True)

    def function(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve_gelu(tokens, weight, bias, 2, mask)

    assert torch.autograd.gradcheck(function, tuple(inputs.to(torch.float64)))
    assert torch.autograd.gradgradcheck(function, tuple(inputs.to(torch.float64)))


def test_padding_is_zero_whatever_it_holds_and_takes_no_gradient() -> None:
    (tokens, weight, bias), mask = drawn(2, 11, 5, True)
    assert mask is not None
    expected = convolve_gelu(tokens, weight, bias, 1, mask)
    tokens[~mask] = float("nan")
    tokens.requires_grad_()
    ours = convolve_gelu(tokens, weight, bias, 1, mask)
    assert torch.equal(ours, expected)
    (grad,) = torch.autograd.grad(ours.sum(), tokens)
    assert not grad[~mask].any()


def test_nan_stays_in_its_channel_and_sample() -> None:
    (tokens, weight, bias), _ = drawn(3, 6, 4, False)
    tokens[0, 2, 1] = float("nan")
    broken = convolve_gelu(tokens.float(), weight.float(), bias.float(), 1).isnan()
    expected = torch.zeros_like(broken)
    expected[0, 1:4, 1] = True
    assert torch.equal(broken, expected)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_passes_for_both_ops(requires_grad: bool) -> None:
    inputs, mask = drawn(4, 5, 3, True)
    given = tuple(own.requires_grad_(requires_grad) for own in inputs)
    torch.library.opcheck(torch.ops.multifuse.convolve_gelu.default, (*given, 2, mask))
    grad = torch.randn(inputs.tokens.shape, dtype=torch.float64).requires_grad_(requires_grad)
    torch.library.opcheck(torch.ops.multifuse.convolve_gelu_vjp.default, (grad, *given, 2, mask))


def test_vmap_is_a_loop_over_the_batch() -> None:
    (tokens, weight, bias), mask = drawn(5, 5, 3, True)
    weights = torch.stack([weight, 2 * weight])
    several = torch.vmap(lambda own: convolve_gelu(tokens, own, bias, 2, mask))(weights)
    torch.testing.assert_close(several, torch.stack([convolve_gelu(tokens, own, bias, 2, mask) for own in weights]))


def test_wrong_shapes_are_named() -> None:
    convolve = torch.ops.multifuse.convolve_gelu.default
    with pytest.raises(RuntimeError, match=r"weight must have shape \(4, 3\), has 2 dimensions and 20 elements"):
        convolve(torch.randn(1, 5, 4), torch.randn(4, 5), torch.randn(4), 1, None)
    with pytest.raises(RuntimeError, match="dilation must be >= 1, got 0"):
        convolve(torch.randn(1, 5, 4), torch.randn(4, 3), torch.randn(4), 0, None)
