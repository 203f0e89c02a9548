"""WhiteningXCorrLoss: agreement with canonical correlations, invariances, and ill-conditioned inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multifuse import WhiteningXCorrLoss
from multifuse.losses.moments import Family, Rows, moments_of
from multifuse.losses.whitening import debiased
from tests import reference


def correlated(rows: int = 400) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 9)
    return x, torch.cat([x[:, :4] + 0.3 * torch.randn(rows, 4), torch.randn(rows, 2)], 1)


def test_loss_is_the_mean_squared_canonical_correlation() -> None:
    x, y = correlated()
    expected = reference.mean_squared_canonical_correlation(x.double().numpy(), y.double().numpy())
    assert abs(float(WhiteningXCorrLoss(1e-9)(x.double(), y.double())) - expected) < 1e-6
    assert abs(float(WhiteningXCorrLoss(1e-6)(x, y)) - expected) < 1e-4


def test_loss_is_one_for_a_copy_and_the_squared_pearson_correlation_for_single_features() -> None:
    x, y = correlated()
    assert abs(float(WhiteningXCorrLoss(1e-9)(x.double(), 3 * x.double() + 1)) - 1) < 1e-6
    pearson = np.corrcoef(x[:, 0].numpy(), y[:, 0].numpy())[0, 1]
    assert abs(float(WhiteningXCorrLoss(1e-9)(x[:, :1].double(), y[:, :1].double())) - pearson**2) < 1e-6


@given(st.floats(1e-4, 1e4), st.floats(-1e3, 1e3))
def test_scale_and_shift_change_nothing(scale: float, shift: float) -> None:
    torch.manual_seed(0)
    x, y = correlated(60)
    expected = float(WhiteningXCorrLoss()(x, y))
    assert abs(float(WhiteningXCorrLoss()(scale * x, y)) - expected) < 1e-4
    assert abs(float(WhiteningXCorrLoss()(x + shift, y)) - expected) < 1e-3


@pytest.mark.filterwarnings("ignore:WhiteningXCorrLoss compares")
@given(st.integers(0, 30), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_loss_is_bounded_with_a_finite_gradient_at_any_size(rows: int, dx: int, dy: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(rows, dx, requires_grad=True), torch.randn(rows, dy)
    loss = WhiteningXCorrLoss()(x, y)
    loss.backward()
    assert -1e-6 <= float(loss.detach()) <= 1 + 1e-5
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("rows", [20, 64, 3200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_variance_the_loss_is_zero_with_a_finite_gradient(dtype: torch.dtype, rows: int) -> None:
    for value in (2.5, 0.1, 1 / 3):  # the last two leave a rounding error when centred
        x = torch.full((rows, 3), value, dtype=dtype, requires_grad=True)
        loss = WhiteningXCorrLoss()(x, torch.full((rows, 2), 0.7, dtype=dtype))
        loss.backward()
        assert float(loss.detach()) == 0
        assert x.grad is not None
        assert x.grad.isfinite().all()
        of_x = Rows(x.detach().unsqueeze(0), torch.ones(1, rows, 1, dtype=dtype))
        moments = moments_of([Family([of_x], of_x.real.sum((1, 2)), of_x.values.sum(1), 3)], False)[0]
        assert not moments.cross.any()


def test_masked_rows_do_not_count() -> None:
    x, y = torch.randn(4, 10, 3), torch.randn(4, 10, 2)
    mask = torch.rand(4, 10) < 0.6
    expected = WhiteningXCorrLoss()(x[mask], y[mask])
    x[~mask], y[~mask] = float("nan"), 1e9
    assert torch.allclose(WhiteningXCorrLoss()(x, y, mask), expected, atol=1e-6)


def test_gradient_is_correct() -> None:
    x, y = torch.randn(12, 3, dtype=torch.double), torch.randn(12, 4, dtype=torch.double)
    loss = WhiteningXCorrLoss(1e-2)
    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_stay_in_float32_under_autocast_and_for_half_inputs(dtype: torch.dtype) -> None:
    x, y = correlated()
    x, y = x.to(dtype), y.to(dtype)
    expected = WhiteningXCorrLoss()(x.float(), y.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(WhiteningXCorrLoss()(x, y), expected)


def test_debiasing_removes_the_expected_score_of_independent_noise() -> None:
    values = [WhiteningXCorrLoss(1e-6)(torch.randn(200, 8), torch.randn(200, 6)) for _ in range(40)]
    assert abs(float(torch.stack(values).mean()) - 8 / 199) < 0.006
    assert float(debiased(torch.tensor(8 / 199), torch.tensor(200.0), 8)) == pytest.approx(0, abs=1e-6)
    assert float(debiased(torch.tensor(1.0), torch.tensor(200.0), 8)) == pytest.approx(1)
    assert float(debiased(torch.tensor(0.9), torch.tensor(5.0), 8)) == 0


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="eps must be finite and > 0, got 0"):
        WhiteningXCorrLoss(0)
    with pytest.raises(ValueError, match=r"equal leading shapes, got \(3, 2\), \(4, 2\)"):
        WhiteningXCorrLoss()(torch.rand(3, 2), torch.rand(4, 2))
    with pytest.raises(ValueError, match=r"mask must be bool, or numbers that are 0 and 1 .*torch.float32"):
        WhiteningXCorrLoss()(torch.rand(3, 2), torch.rand(3, 2), torch.full((3,), 0.5))


def test_second_derivatives_and_torch_func_transforms_are_correct() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    before = x.clone()
    loss = WhiteningXCorrLoss()
    inputs = (x.requires_grad_(), y.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)
    assert torch.equal(x, before), "the input was modified"
    several = torch.vmap(loss)(torch.stack([x, 2 * y @ y.mT @ x]), torch.stack([y, y]))
    torch.testing.assert_close(several[0], loss(x, y))
    gradient = torch.autograd.grad(loss(x, y), x)[0]
    torch.testing.assert_close(torch.func.grad(loss)(x, y), gradient)
    direction = torch.randn_like(x)
    slope = torch.func.jvp(lambda moved: loss(moved, y), (x,), (direction,))[1]
    torch.testing.assert_close(slope, (gradient * direction).sum())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("debias", [False, True])
def test_a_value_that_is_not_finite_makes_loss_and_gradients_nan(bad: float, debias: bool) -> None:
    """A finite loss with NaN gradients would let the step through every guard that looks at the loss."""
    x, y = torch.randn(50, 4), torch.randn(50, 3)
    x[7, 2] = bad
    x.requires_grad_()
    y.requires_grad_()
    loss = WhiteningXCorrLoss(debias=debias)(x, y)
    assert loss.isnan()
    for grad in torch.autograd.grad(loss, [x, y]):
        assert grad.isnan().any()


def test_a_value_that_is_not_finite_in_a_masked_row_changes_nothing() -> None:
    x, y, mask = torch.randn(50, 4), torch.randn(50, 3), torch.arange(50) != 7
    expected = WhiteningXCorrLoss()(x, y, mask)
    x[7] = float("nan")
    x.requires_grad_()
    loss = WhiteningXCorrLoss()(x, y, mask)
    assert torch.equal(loss, expected)
    (grad,) = torch.autograd.grad(loss, x)
    assert grad.isfinite().all()


def test_debias_takes_out_what_independent_noise_scores() -> None:
    x, y = torch.randn(200, 40), torch.randn(200, 40)
    assert 0.15 < WhiteningXCorrLoss()(x, y) < 0.3
    assert WhiteningXCorrLoss(debias=True)(x, y) < 0.05
    assert WhiteningXCorrLoss(eps=1e-9, debias=True)(x, x @ torch.randn(40, 40)) > 0.99


def test_no_more_rows_than_features_are_warned_of_once() -> None:
    loss = WhiteningXCorrLoss()
    x = torch.randn(8, 64)
    with pytest.warns(RuntimeWarning, match="compares 8 rows of up to 64 features.*score the same"):
        noise = loss(x, torch.randn(8, 64))
    identical = loss(x, x)  # a second warning would be an error here
    torch.testing.assert_close(noise, identical, atol=1e-3, rtol=0)
    assert WhiteningXCorrLoss()(torch.randn(65, 64), torch.randn(65, 64)) > 0.9
