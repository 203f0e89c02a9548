"""`project_capped_simplex` on every path: accuracy, edge cases, derivatives, and what torch requires of an op."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multifuse.ops import backend, native, portable, project_capped_simplex
from multifuse.ops.portable import compute_dtype
from tests import reference

Projection = Callable[..., Tensor]


def portable_projection(z: Tensor, budget: Tensor, mask: Tensor | None = None) -> Tensor:
    budget = budget.to(compute_dtype(z.dtype)).expand(z.shape[:-1])
    return portable.project(z, budget, None if mask is None else mask.expand(z.shape))[0]


def differentiable_projection(z: Tensor, budget: Tensor, mask: Tensor | None = None) -> Tensor:
    budget = budget.to(compute_dtype(z.dtype)).expand(z.shape[:-1])
    return portable.differentiable_projection(z, budget, None if mask is None else mask.expand(z.shape))


@pytest.fixture(params=["dispatched", "portable", "differentiable"])
def project(request: pytest.FixtureRequest, device: torch.device) -> Projection:
    """Returns the projection on each device and path; its results are on the CPU."""
    paths = {
        "dispatched": project_capped_simplex,
        "portable": portable_projection,
        "differentiable": differentiable_projection,
    }
    path = paths[request.param]

    def projected(z: Tensor, budget: Tensor, mask: Tensor | None = None) -> Tensor:
        return path(z.to(device), budget.to(device), None if mask is None else mask.to(device)).cpu()

    return projected


@pytest.mark.parametrize("kind", range(reference.ROW_KINDS))
def test_matches_the_float64_reference_on_adversarial_rows(project: Projection, kind: int) -> None:
    random = np.random.default_rng(kind)
    for length in (1, 2, 3, 7, 31, 32, 33, 50, 129, 500, 1024, 1025, 4097, 20000):
        z = reference.adversarial_rows(random, 4, length, kind)
        budget = (random.uniform(0, 1.1, size=4) * length).astype(np.float32).astype(np.float64)
        mask = random.random((4, length)) < 0.8 if length % 2 else None
        ours = project(
            torch.tensor(z).float(), torch.tensor(budget).float(), None if mask is None else torch.tensor(mask)
        )
        error = np.abs(ours.double().numpy() - reference.project(z, budget, mask)) / np.maximum(1, np.abs(z).max())
        assert error.max() <= 2e-6, (length, error.max())


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=40), st.floats(0.015625, 30, width=32))
def test_projection_is_feasible_and_satisfies_the_optimality_conditions(values: list[float], budget: float) -> None:
    z = torch.tensor([values], dtype=torch.float64)
    alpha = project_capped_simplex(z, budget)[0]
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert alpha.sum() <= budget + 1e-9
    # Complementary slackness: z - alpha, the multiplier, is equal for all tokens inside; no zero token exceeds it.
    inside = (alpha > 1e-9) & (alpha < 1 - 1e-9)
    if alpha.sum() < budget - 1e-9:
        assert torch.equal(alpha, z[0].clamp(0, 1))
    elif inside.any():
        multiplier = (z[0] - alpha)[inside]
        assert multiplier.max() - multiplier.min() < 1e-9
        assert (z[0][alpha <= 1e-9] <= multiplier.mean() + 1e-8).all()
        assert (z[0][alpha >= 1 - 1e-9] >= 1 + multiplier.mean() - 1e-8).all()


def test_small_cases_worked_by_hand(project: Projection) -> None:
    z = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [2.0, 2.0, 0.0], [3.0, 0.5, -1.0]])
    budget = torch.tensor([2.0, 0.9, 1.0, 1.2])
    expected = torch.tensor([[0.9, 0.5, 0.1], [0.65, 0.25, 0.0], [0.5, 0.5, 0.0], [1.0, 0.2, 0.0]])
    assert torch.allclose(project(z, budget), expected, atol=1e-6)


def test_a_budget_of_zero_or_less_gives_zeros(project: Projection) -> None:
    z = torch.tensor([[1.0, float("inf"), 0.5]]).repeat(3, 1)
    assert not project(z, torch.tensor([0.0, -1.0, -float("inf")])).any()


def test_a_large_sum_of_saturated_tokens_causes_no_rounding_error(project: Projection) -> None:
    for count in (510, 4_000, 30_000):
        z = torch.cat([torch.full((count,), 2.0), torch.tensor([0.9])])[None]
        alpha = project(z, torch.tensor([count + 0.3]))
        budget = float(torch.tensor(count + 0.3))
        assert abs(float(alpha[0, -1]) - (budget - count)) < 4e-6


def test_minus_infinity_is_masked_and_infinity_exceeds_every_finite_value(project: Projection) -> None:
    inf = float("inf")
    z = torch.tensor([[1.0, -inf, 0.5], [inf, 0.5, 0.2], [inf, inf, 5.0], [-inf, -inf, -inf]])
    alpha = project(z, torch.tensor([1.0, 1.2, 1.0, 1.0]))
    expected = torch.tensor([[0.75, 0.0, 0.25], [1.0, 0.2, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(alpha, expected, atol=1e-6)


def test_nan_stays_in_its_own_row(project: Projection) -> None:
    nan = float("nan")
    z = torch.tensor([[1.0, nan, 0.0], [2.0, 2.0, 2.0], [1.0, nan, 0.5], [0.3, 0.2, 0.1]])
    mask = torch.tensor([[True, True, False], [True] * 3, [True, False, True], [True] * 3])
    alpha = project(z, torch.tensor([1.0, 1.5, 2.0, nan]), mask)
    assert alpha[0, :2].isnan().all()
    assert alpha[0, 2] == 0
    assert torch.allclose(alpha[1], torch.full((3,), 0.5))
    assert torch.allclose(alpha[2], torch.tensor([1.0, 0.0, 0.5]))
    assert alpha[3].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(project: Projection, dtype: torch.dtype) -> None:
    z = torch.rand(4, 300).to(dtype)
    budget = torch.full((4,), 20.0)
    alpha = project(z, budget)
    assert alpha.dtype == dtype
    assert torch.equal(alpha, project(z.float(), budget).to(dtype))


def test_empty_rows_and_strided_inputs_are_supported(project: Projection) -> None:
    assert project(torch.randn(3, 0), torch.ones(3)).shape == (3, 0)
    assert project(torch.randn(0, 3), torch.ones(0)).shape == (0, 3)
    z = torch.randn(6, 5, 8).transpose(0, 2)[::2]
    budget = torch.rand(5, 4).t() * 3
    assert torch.equal(project(z, budget), project(z.contiguous(), budget.contiguous()))


def test_budget_broadcasts_as_a_number_and_as_a_tensor() -> None:
    z = torch.rand(2, 3, 4)
    full = project_capped_simplex(z, torch.full((2, 3), 1.5))
    assert torch.equal(project_capped_simplex(z, 1.5), full)
    assert torch.equal(project_capped_simplex(z, torch.tensor([1.5])), full)
    assert torch.equal(project_capped_simplex(z, torch.tensor(1.5, dtype=torch.float64)), full)
    one_mask = project_capped_simplex(z, 1.5, torch.tensor([True, False, True, True]))
    assert not one_mask[..., 1].any()


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_rows_along_any_dimension_equal_rows_along_the_last(device: torch.device, dim: int) -> None:
    z, mask = torch.randn(4, 5, 6, device=device), torch.rand(4, 5, 6, device=device) < 0.8
    budget = torch.rand(z.movedim(dim, -1).shape[:-1], device=device) * 2
    expected = project_capped_simplex(z.movedim(dim, -1), budget, mask.movedim(dim, -1)).movedim(-1, dim)
    assert torch.equal(project_capped_simplex(z, budget, mask, dim=dim), expected)
    assert torch.equal(project_capped_simplex(z, budget.unsqueeze(dim), mask, dim=dim), expected)
    leaf = z.clone().requires_grad_()
    grad = torch.randn(4, 5, 6, device=device)
    (ours,) = torch.autograd.grad(project_capped_simplex(leaf, budget, mask, dim=dim), leaf, grad)
    moved = project_capped_simplex(leaf.movedim(dim, -1), budget, mask.movedim(dim, -1))
    assert torch.equal(ours, torch.autograd.grad(moved, leaf, grad.movedim(dim, -1))[0])


def test_a_budget_that_keeps_the_dimension_gives_what_one_without_it_gives() -> None:
    z = torch.rand(3, 7)
    budget = torch.tensor([0.5, 1.0, 2.0])
    expected = project_capped_simplex(z, budget)
    assert torch.equal(project_capped_simplex(z, budget[:, None]), expected)
    assert torch.equal(project_capped_simplex(z, budget[:1, None]), project_capped_simplex(z, 0.5))
    assert torch.equal(project_capped_simplex(z[0], budget[:1]), expected[0])
    # A budget with one dimension less keeps its meaning: (B, 1) broadcasts over the rows of (B, M, T).
    rows = torch.rand(3, 2, 7)
    assert torch.equal(
        project_capped_simplex(rows, budget[:, None]), project_capped_simplex(rows, budget[:, None].expand(3, 2))
    )


@pytest.mark.parametrize(
    ("z", "budget", "dim", "message"),
    [
        (torch.rand(2, 3), 1.0, 2, r"dim must be an integer in \[-2, 1\] for z of shape \(2, 3\), got 2"),
        (torch.rand(2, 3), 1.0, -3, r"dim must be an integer in \[-2, 1\] .*, got -3"),
        (torch.rand(2, 3), 1.0, 0.5, r"dim must be an integer in \[-2, 1\] .*, got 0.5"),
        (torch.rand(2, 3), torch.ones(2), 0, r"budget of shape \(2,\) does not broadcast to \(3,\) or \(1, 3\)$"),
        (torch.rand(2, 3), torch.ones(2, 3), -1, r"budget of shape \(2, 3\) does not broadcast to \(2,\) or \(2, 1\)$"),
        (torch.rand(2, 3), torch.ones(3, 1), -1, r"budget of shape \(3, 1\) does not broadcast to \(2,\) or \(2, 1\)$"),
        (torch.rand(2, 3), torch.ones(1, 2, 1), -1, r"budget of shape \(1, 2, 1\) does not broadcast"),
    ],
)
def test_dimensions_and_budgets_that_do_not_fit_are_named(z: Tensor, budget: Any, dim: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project_capped_simplex(z, budget, dim=dim)


@pytest.mark.parametrize(
    ("z", "budget", "mask", "message"),
    [
        (torch.ones(2, 3, dtype=torch.long), 1.0, None, "z must be float16.*torch.int64"),
        (torch.tensor(1.0), 1.0, None, "z must have at least one dimension"),
        (torch.rand(2, 3), torch.ones(5), None, r"budget of shape \(5,\)"),
        (
            torch.rand(2, 3),
            1.0,
            torch.full((2, 3), 0.5),
            r"mask must be bool, .*torch.float32 with the values 0\.5",
        ),
        (
            torch.rand(2, 3),
            1.0,
            torch.arange(6).view(2, 3),
            "mask must be bool, .* the values 2, 3, 4, 5",
        ),
        (torch.rand(2, 3), 1.0, torch.ones(2, 4, dtype=torch.bool), r"mask of shape \(2, 4\)"),
        (torch.rand(2, 3), 1.0, torch.ones(2, 3, dtype=torch.bool, device="meta"), "mask must be on z's device cpu"),
    ],
)
def test_bad_arguments_are_named(z: Tensor, budget: Any, mask: Tensor | None, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        project_capped_simplex(z, budget, mask)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32, torch.bfloat16])
def test_masks_of_zeros_and_ones_equal_bool_masks(dtype: torch.dtype) -> None:
    z, mask = torch.rand(3, 7), torch.rand(3, 7) < 0.6
    assert torch.equal(project_capped_simplex(z, 1.5, mask.to(dtype)), project_capped_simplex(z, 1.5, mask))


def inputs_away_from_kinks(device: torch.device, rows: int = 6, length: int = 12) -> tuple[Tensor, Tensor]:
    """Returns z and budgets, half of which bind and half are slack; no token is within 1e-3 of a kink."""
    z = torch.randn(rows, length, dtype=torch.float64)
    budget = torch.cat([torch.rand(rows // 2) * 2 + 0.5, torch.full((rows - rows // 2,), 50.0)]).double()
    shifted = z - portable.project(z, budget, None)[1].unsqueeze(-1)
    is_near = (shifted.abs() < 1e-3) | ((shifted - 1).abs() < 1e-3)
    return (z + is_near * 0.01).to(device).requires_grad_(), budget.to(device).requires_grad_()


@pytest.mark.parametrize("masked", [False, True])
def test_first_and_second_derivatives_are_correct(device: torch.device, masked: bool) -> None:
    z, budget = inputs_away_from_kinks(device)
    mask = (torch.rand(z.shape) < 0.8).to(device) if masked else None

    def function(z: Tensor, budget: Tensor) -> Tensor:
        return project_capped_simplex(z, budget, mask)

    assert torch.autograd.gradcheck(function, (z, budget), eps=1e-7)
    assert torch.autograd.gradgradcheck(function, (z, budget), eps=1e-7)


@pytest.mark.parametrize("length", [300, 1500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_backward_matches_the_documented_formula_on_every_path(
    device: torch.device, dtype: torch.dtype, length: int
) -> None:
    z = torch.randn(8, length).to(dtype)
    budget = torch.tensor([5.0, 40.0, 500.0, 1.0, 0.0, 20.0, 3.0, 9.0], dtype=compute_dtype(dtype))
    mask = torch.rand(8, length) < 0.7
    grad = torch.randn(8, length).to(dtype)
    _, threshold = portable.project(z, budget, mask)
    active = portable.active_set(z, threshold, mask)
    mean = torch.where(active, grad.to(budget.dtype), 0.0).sum(-1) / active.sum(-1).clamp(min=1)
    mean = torch.where((threshold > 0) & active.any(-1), mean, 0.0)
    expected = torch.where(active, grad.to(budget.dtype) - mean[:, None], 0.0)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    for path in (project_capped_simplex, differentiable_projection):
        inputs = (z.to(device).requires_grad_(), budget.to(device).requires_grad_())
        grad_z, grad_budget = torch.autograd.grad(path(*inputs, mask.to(device)), inputs, grad.to(device))
        assert torch.allclose(grad_z.cpu().to(expected.dtype), expected, atol=tolerance)
        assert torch.allclose(grad_budget.cpu(), mean, atol=1e-5)
    grad_z, grad_budget = portable.project_vjp(grad, z, threshold, mask)
    assert torch.allclose(grad_z.to(expected.dtype), expected, atol=tolerance)
    assert torch.allclose(grad_budget, mean, atol=1e-5)


def test_gradients_at_infinity_and_nan_are_the_same_on_every_path(device: torch.device) -> None:
    inf, nan = float("inf"), float("nan")
    z = torch.tensor([[inf, 0.6, 0.5], [inf, 0.5, 0.2], [nan, 0.5, 0.2], [0.3, 0.2, 0.1], [-inf, 0.7, 0.6]])
    budget = torch.tensor([0.5, 1.4, 1.0, nan, 1.0])
    mask = torch.tensor([[True] * 3] * 2 + [[True, True, False]] + [[True] * 3] * 2)
    expected_z = torch.tensor([[0.0] * 3, [0.0, -0.5, 0.5], [nan, nan, 0.0], [nan] * 3, [0.0, -0.5, 0.5]])
    expected_budget = torch.tensor([0.0, 2.5, nan, nan, 2.5])
    for path in (project_capped_simplex, differentiable_projection):
        inputs = (z.to(device).requires_grad_(), budget.to(device).requires_grad_())
        grad = torch.tensor([1.0, 2.0, 3.0], device=device).expand(5, 3)
        grads = torch.autograd.grad(path(*inputs, mask.to(device)), inputs, grad)
        torch.testing.assert_close(grads[0].cpu(), expected_z, equal_nan=True)
        torch.testing.assert_close(grads[1].cpu(), expected_budget, equal_nan=True)


@pytest.mark.parametrize("length", [4, 100, 4096])
def test_a_budget_that_binds_by_one_rounding_is_not_treated_as_slack(length: int) -> None:
    z = torch.full((2, length), 0.5, requires_grad=True)
    total = torch.tensor(0.5 * length)
    budget = torch.stack([torch.nextafter(total, torch.tensor(0.0)), total]).requires_grad_()
    grad = torch.arange(2.0 * length).view(2, length)
    grad_z, grad_budget = torch.autograd.grad(project_capped_simplex(z, budget), (z, budget), grad)
    torch.testing.assert_close(grad_z[0], grad[0] - grad[0].mean())
    torch.testing.assert_close(grad_budget[0], grad[0].mean())
    assert torch.equal(grad_z[1], grad[1])
    assert grad_budget[1] == 0


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_passes_for_both_operators(device: torch.device, requires_grad: bool) -> None:
    z = torch.randn(3, 9, device=device, requires_grad=requires_grad)
    budget = torch.tensor([1.0, 2.0, 30.0], device=device, requires_grad=requires_grad)
    mask = torch.rand(3, 9, device=device) < 0.8
    threshold = portable.project(z.detach(), budget.detach(), mask)[1]
    grad = torch.randn(3, 9, device=device, requires_grad=requires_grad)
    for keep in (None, mask):
        torch.library.opcheck(torch.ops.multifuse.project.default, (z, budget, keep))
        torch.library.opcheck(torch.ops.multifuse.project_vjp.default, (grad, z.detach(), threshold, keep))


def test_compiles_as_one_graph_with_equal_gradients() -> None:
    def function(z: Tensor, budget: Tensor) -> Tensor:
        return project_capped_simplex(z, budget).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    z, budget = torch.randn(5, 33, requires_grad=True), torch.full((5,), 4.0, requires_grad=True)
    plain = torch.autograd.grad(function(z, budget), (z, budget))
    for ours, expected in zip(torch.autograd.grad(compiled(z, budget), (z, budget)), plain, strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)


def test_exports_with_a_dynamic_batch() -> None:
    class Module(torch.nn.Module):
        def forward(self, z: Tensor, budget: Tensor) -> Tensor:
            return project_capped_simplex(z, budget)

    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        Module(), (torch.rand(4, 9), torch.ones(4)), dynamic_shapes={"z": {0: batch}, "budget": {0: batch}}
    )
    z, budget = torch.rand(7, 9), torch.full((7,), 2.0)
    assert torch.allclose(program.module()(z, budget), project_capped_simplex(z, budget))


def test_vmap_equals_the_batched_call() -> None:
    z, budget = torch.randn(3, 4, 9), torch.full((3, 4), 2.0)
    expected = project_capped_simplex(z, budget)
    assert torch.allclose(torch.func.vmap(project_capped_simplex)(z, budget), expected)
    assert torch.allclose(
        torch.func.vmap(project_capped_simplex, in_dims=(1, None))(z.movedim(0, 1), budget[0]), expected
    )


def test_autocast_keeps_the_input_dtype() -> None:
    z = torch.rand(2, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        alpha = project_capped_simplex(z, 5.0)
    assert alpha.dtype == torch.float32
    assert torch.equal(alpha, project_capped_simplex(z, 5.0))


def test_rows_on_many_threads_equal_one_row_at_a_time() -> None:
    z, budget = torch.randn(700, 129), torch.rand(700) * 60
    rows = torch.cat([project_capped_simplex(z[i : i + 1], budget[i : i + 1]) for i in range(700)])
    assert torch.equal(project_capped_simplex(z, budget), rows)


def test_this_installation_uses_its_compiled_kernels() -> None:
    if native.forced_fallback():
        pytest.skip(f"{native.FALLBACK_VARIABLE} is set")
    assert backend("cpu") == "cpp"


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (torch.tensor(1 + 2j), "^budget must be real, got torch.complex64$"),
        (1 + 2j, r"^budget must be a number or a tensor, got \(1\+2j\)$"),
        (None, "^budget must be a number or a tensor, got None$"),
        ("much", "^budget must be a number or a tensor, got 'much'$"),
    ],
)
def test_a_budget_that_is_no_real_number_is_refused(budget: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project_capped_simplex(torch.rand(2, 3), budget)


@pytest.mark.parametrize("length", [3, 40])
def test_tokens_at_0_and_at_1_receive_no_gradient(length: int, device: torch.device) -> None:
    """They are saturated: alpha stays 0 or 1, and where the budget binds, they are not among those that share it."""
    z = torch.full((2, length), -1.0)
    z[0, :3] = torch.tensor([0.0, 1.0, 0.5])  # slack
    z[1, :3] = torch.tensor([1.25, 0.25, 0.5])  # binds at the threshold 0.25
    budget = torch.tensor([2.0, 1.25])
    grad = torch.tensor([3.0, 5.0, 7.0, *[1.0] * (length - 3)], device=device).expand(2, length)
    expected = torch.zeros(2, length)
    expected[0, 2] = 7.0
    for path in (project_capped_simplex, differentiable_projection):
        inputs: tuple[Tensor, Tensor] = (z.to(device).requires_grad_(), budget.to(device).requires_grad_())
        grad_z, grad_budget = torch.autograd.grad(path(*inputs, None), inputs, grad)
        torch.testing.assert_close(grad_z.cpu(), expected)
        torch.testing.assert_close(grad_budget.cpu(), torch.tensor([0.0, 7.0]))
