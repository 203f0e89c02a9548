"""`allot`: the compiled op against its steps in float64, derivatives, NaN, and what torch asks of an op."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multifuse.ops.budget import allot, in_steps

PARAMETERS = torch.tensor([4.0, -0.5, 0.6], dtype=torch.float64)


def allotted(codes: Tensor, parameters: Tensor, mask: Tensor | None = None) -> Tensor:
    sharpness, threshold, share = parameters.unbind()
    return allot(codes, sharpness, threshold, share, mask)


def drawn(seed: int, length: int, rank: int, masked: bool) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    # A view whose tokens do not lie side by side, as the shared part of codes does.
    codes = torch.randn(3, length, rank + 2, generator=generator, dtype=torch.float64)[..., :rank]
    mask = torch.rand(3, length, generator=generator) < 0.7 if masked else None
    if mask is not None:
        mask[0] = False
    return codes, mask


@given(st.integers(1, 70), st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_is_what_the_separate_steps_give_with_their_gradients(length: int, rank: int, masked: bool, seed: int) -> None:
    codes, mask = drawn(seed, length, rank, masked)
    inputs = (codes.requires_grad_(), PARAMETERS.clone().requires_grad_())
    expected = in_steps(*inputs, mask)
    grad = torch.randn(expected.shape, dtype=torch.float64)
    ours = allotted(*inputs, mask)
    torch.testing.assert_close(ours, expected)
    pairs = zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True)
    for own, theirs in pairs:
        torch.testing.assert_close(own, theirs, atol=1e-9, rtol=1e-7)
    for dtype in (torch.float32, torch.bfloat16):
        half = codes.detach().to(dtype)
        alpha = allotted(half, PARAMETERS.float(), mask)
        exact = in_steps(half.double(), PARAMETERS, mask)
        # Evidence that hardly varies is a small difference of rounded norms.
        steps = in_steps(half, PARAMETERS.float(), mask)
        assert (alpha - exact).abs().max() <= 1e-5 + 4 * (steps - exact).abs().max()


def test_first_and_second_derivatives_are_correct() -> None:
    codes, mask = drawn(1, 5, 2, True)

    def function(given: Tensor, parameters: Tensor) -> Tensor:
        return allotted(given, parameters, mask)

    inputs = (codes.requires_grad_(), PARAMETERS.clone().requires_grad_())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_nan_stays_in_its_sample_and_padding_gives_none() -> None:
    codes, _ = drawn(2, 9, 4, False)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, 3] = False
    codes[0, 2] = codes[1, 3] = float("nan")
    codes.requires_grad_()
    alpha = allotted(codes, PARAMETERS, mask)
    assert alpha[0].isnan().all()
    assert alpha[1:].isfinite().all()
    assert float(alpha[1, 3].detach()) == 0
    (grad,) = torch.autograd.grad(alpha[1:].sum(), codes)
    assert grad[1:].isfinite().all()
    assert not grad[1, 3].any()


def test_equal_and_zero_codes_have_finite_gradients() -> None:
    codes = torch.stack([torch.ones(6, 3), torch.zeros(6, 3)]).requires_grad_()
    (grad,) = torch.autograd.grad(allotted(codes, PARAMETERS.float()).square().sum(), codes)
    assert grad.isfinite().all()
    assert not grad[1].any()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_passes_for_both_ops(requires_grad: bool) -> None:
    codes, mask = drawn(4, 5, 3, True)
    given = (codes.requires_grad_(requires_grad), PARAMETERS.clone().requires_grad_(requires_grad))
    torch.library.opcheck(torch.ops.multifuse.allot.default, (*given, mask))
    alpha, kept = torch.ops.multifuse.allot.default(codes.detach(), PARAMETERS, mask)
    grad = torch.randn_like(alpha).requires_grad_(requires_grad)
    torch.library.opcheck(torch.ops.multifuse.allot_vjp.default, (grad, *given, kept, mask))


def test_vmap_is_a_loop_over_the_batch() -> None:
    codes, mask = drawn(5, 6, 3, True)
    several = torch.stack([codes, 2 * codes[..., [1, 2, 0]]])
    batched = torch.vmap(lambda own: allotted(own, PARAMETERS, mask))(several)
    torch.testing.assert_close(batched, torch.stack([allotted(own, PARAMETERS, mask) for own in several]))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(RuntimeError, match="parameters must be sharpness, threshold and share"):
        torch.ops.multifuse.allot.default(torch.randn(1, 5, 4), torch.randn(2), None)
    with pytest.raises(RuntimeError, match=r"mask must be bool of shape \(1, 5\), has 2 dimensions and 4 elements"):
        torch.ops.multifuse.allot.default(torch.randn(1, 5, 4), torch.randn(3), torch.ones(1, 4, dtype=torch.bool))
