"""`soft_topk` and `keep_top`: the problem that is solved, its limits, derivatives, masks, and which tokens are kept."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multifuse.ops import keep_top, soft_topk

FINITE = st.floats(-8, 8, width=32)


def by_bisection(scores: Tensor, k: float) -> Tensor:
    """Solves one row in float64 from the definition: the threshold at which the clipped scores sum to k."""
    row = scores.double().numpy()
    if k >= len(row):
        return torch.ones(len(row), dtype=torch.float64)
    low, high = row.min() - 1, row.max()
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(row - middle, 0, 1).sum() > k:
            low = middle
        else:
            high = middle
    return torch.from_numpy(np.clip(row - high, 0, 1))


def sparsemax_by_sorting(scores: Tensor) -> Tensor:
    """Martins and Astudillo's Algorithm 1, row by row."""
    descending = scores.sort(dim=-1, descending=True).values
    ranks = torch.arange(1, scores.shape[-1] + 1)
    sums = descending.cumsum(-1)
    support = (1 + ranks * descending > sums).sum(-1, keepdim=True)
    threshold = (sums.gather(-1, support - 1) - 1) / support
    return (scores - threshold).clamp(min=0)


@given(st.lists(FINITE, min_size=1, max_size=30), st.floats(0.125, 40, width=32), st.floats(0.125, 4))
def test_weights_solve_the_problem_and_sum_to_k(values: list[float], k: float, temperature: float) -> None:
    scores = torch.tensor([values], dtype=torch.float64)
    alpha = soft_topk(scores, k, temperature=temperature)[0]
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert abs(float(alpha.sum()) - min(k, len(values))) < 1e-9
    torch.testing.assert_close(alpha, by_bisection(scores[0] / temperature, k), atol=1e-8, rtol=0)


@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0, 1e6])
def test_float32_rows_are_as_exact_as_the_projection(device: torch.device, spread: float) -> None:
    for length in (1, 2, 7, 64, 500):
        scores = torch.randn(4, length) * spread
        for k in (0.5, 1, 3, 4.5, length / 2, length):
            alpha = soft_topk(scores.to(device), k).cpu().double()
            expected = torch.stack([by_bisection(row, k) for row in scores])
            torch.testing.assert_close(alpha, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("offset", [1e3, 1e5, 1e7, -1e7])
def test_large_scores_lose_no_precision(device: torch.device, offset: float) -> None:
    scores = torch.arange(64).flip(0) % 8 + offset  # differences that float32 holds exactly at every offset
    scores = torch.stack([scores, scores / 4096 * 4096]).to(device)
    expected = soft_topk((scores.double() - offset) / 32, 6)
    torch.testing.assert_close(soft_topk(scores, 6, temperature=32).double(), expected, atol=5e-7, rtol=0)


@given(st.lists(st.lists(FINITE, min_size=7, max_size=7), min_size=1, max_size=4))
def test_k_of_one_is_sparsemax(values: list[list[float]]) -> None:
    scores = torch.tensor(values, dtype=torch.float32)
    torch.testing.assert_close(soft_topk(scores, 1), sparsemax_by_sorting(scores.double()).float(), atol=1e-6, rtol=0)


def test_k_of_one_has_the_gradient_of_sparsemax(device: torch.device) -> None:
    scores, grad = torch.randn(6, 12, dtype=torch.float64, device=device), torch.randn(6, 12).double().to(device)
    leaf = scores.clone().requires_grad_()
    alpha = soft_topk(leaf, 1)
    support = alpha.detach() > 0
    mean = (grad * support).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
    torch.testing.assert_close(torch.autograd.grad(alpha, leaf, grad)[0], support * (grad - mean))


@given(st.permutations(range(12)), st.integers(1, 12))
def test_a_temperature_near_zero_gives_the_hard_top_k(order: list[int], k: int) -> None:
    scores = torch.tensor([order], dtype=torch.float32) / 10
    expected = torch.tensor([[float(value >= 12 - k) for value in order]])
    assert torch.equal(soft_topk(scores, k, temperature=0.09), expected)  # less than the scores' distance
    assert torch.equal(soft_topk(scores, k, temperature=1e-30), expected)


def test_a_large_temperature_gives_equal_weights() -> None:
    torch.testing.assert_close(soft_topk(torch.randn(3, 10), 4, temperature=1e6), torch.full((3, 10), 0.4))


def test_small_cases_worked_by_hand(device: torch.device) -> None:
    scores = torch.tensor([[2.0, 1.5, 1.2, -1.0]], device=device)
    for k, expected in ((2, [1.0, 0.65, 0.35, 0.0]), (0.5, [0.5, 0.0, 0.0, 0.0]), (0, [0.0] * 4), (4, [1.0] * 4)):
        torch.testing.assert_close(soft_topk(scores, k).cpu(), torch.tensor([expected]))
    ties = torch.tensor([[3.0, 3.0, 3.0, -5.0]], device=device)
    torch.testing.assert_close(soft_topk(ties, 2).cpu(), torch.tensor([[2 / 3, 2 / 3, 2 / 3, 0.0]]))


@given(st.lists(FINITE, min_size=2, max_size=20), st.floats(0.125, 20, width=32), st.integers(-4096, 4096))
def test_a_constant_added_to_the_scores_changes_nothing(values: list[float], k: float, constant: int) -> None:
    scores = torch.tensor([values], dtype=torch.float64)
    torch.testing.assert_close(soft_topk(scores + constant, k), soft_topk(scores, k), atol=1e-10, rtol=0)


@given(st.data(), st.lists(FINITE, min_size=1, max_size=20), st.floats(0.125, 20, width=32))
def test_reordered_tokens_have_reordered_weights(data: st.DataObject, values: list[float], k: float) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(values)))))
    scores = torch.tensor([values], dtype=torch.float64)
    real = torch.tensor([data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))])
    permuted = soft_topk(scores[:, order], k, mask=real[:, order])
    torch.testing.assert_close(permuted, soft_topk(scores, k, mask=real)[:, order], atol=1e-12, rtol=0)


def test_k_per_row_equals_each_row_with_its_own_number(device: torch.device) -> None:
    scores, mask = torch.randn(6, 9, device=device), torch.rand(6, 9, device=device) < 0.7
    numbers = [0.0, 0.3, 1.0, 2.5, 4.0, 100.0]
    k = torch.tensor(numbers, device=device)
    expected = torch.cat(
        [soft_topk(scores[i : i + 1], number, mask=mask[i : i + 1]) for i, number in enumerate(numbers)]
    )
    torch.testing.assert_close(soft_topk(scores, k, mask=mask), expected)
    torch.testing.assert_close(soft_topk(scores, k[:, None], mask=mask), expected)
    torch.testing.assert_close(soft_topk(scores, k.double(), mask=mask), expected)
    whole = torch.arange(6, device=device)
    torch.testing.assert_close(soft_topk(scores, whole), soft_topk(scores, whole.float()))


@pytest.mark.parametrize("per_row", [False, True])
def test_masked_tokens_have_no_weight_and_no_gradient_and_change_nothing(device: torch.device, per_row: bool) -> None:
    nan = float("nan")
    scores = torch.tensor([[0.5, 9.0, 0.2, nan, 0.1], [1.0, 2.0, 3.0, 4.0, 5.0], [4.0, 3.0, 2.0, 1.0, 0.0]])
    mask = torch.tensor([[True, False, True, False, True], [False] * 5, [False, False, False, True, True]])
    leaf = scores.to(device).requires_grad_()
    k = torch.full((3,), 2.0, device=device, requires_grad=True) if per_row else 2
    alpha = soft_topk(leaf, k, mask=mask.to(device))
    short = soft_topk(torch.tensor([0.5, 0.2, 0.1]), 2)
    expected = torch.zeros(3, 5)
    expected[0, mask[0]] = short
    expected[2, 3:] = 1.0  # two real tokens, and k is 2
    torch.testing.assert_close(alpha.detach().cpu(), expected)
    assert not alpha[~mask].any()
    inputs = [leaf, *([k] if isinstance(k, Tensor) else [])]
    for gradient in torch.autograd.grad(alpha.square().sum(), inputs):
        assert gradient.isfinite().all()
        assert not gradient[1].any()  # the row without a real token
        if gradient.ndim == 2:
            assert not gradient[~mask].any()


@pytest.mark.parametrize("k", [3, 3.5, 50, torch.tensor([3.0]), torch.tensor([float("inf")])], ids=str)
def test_rows_with_no_more_than_k_real_tokens_have_ones(device: torch.device, k: Any) -> None:
    k = k.to(device) if isinstance(k, Tensor) else k
    scores = torch.tensor([[1e8, -1e8, 0.0, 7.0, float("-inf")]], device=device, requires_grad=True)
    alpha = soft_topk(scores, k, mask=torch.tensor([True, True, True, False, True], device=device))
    assert torch.equal(alpha.cpu(), torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]]))
    assert not torch.autograd.grad(alpha.sum(), scores)[0].any()


@pytest.mark.parametrize("per_row", [False, True])
def test_infinity_and_nan_follow_the_projection(device: torch.device, per_row: bool) -> None:
    inf, nan = float("inf"), float("nan")
    scores = torch.tensor([[inf, 0.5, 0.2], [inf, inf, 5.0], [-inf, 1.0, 1.0], [-inf] * 3, [nan, 1.0, 2.0]])
    k = torch.full((5,), 1.5) if per_row else 1.5
    leaf = scores.to(device).requires_grad_()
    alpha = soft_topk(leaf, k)
    expected = torch.tensor([[1.0, 0.4, 0.1], [0.75, 0.75, 0.0], [0.0, 0.75, 0.75], [0.0] * 3, [nan] * 3])
    torch.testing.assert_close(alpha.detach().cpu(), expected, equal_nan=True)
    (gradient,) = torch.autograd.grad(alpha[:4].square().sum(), leaf)
    assert gradient[:4].isfinite().all()
    assert not gradient[scores.isinf()].any()
    if per_row:
        assert soft_topk(torch.rand(2, 3, device=device), torch.tensor([nan, 1.0]))[0].isnan().all()


def test_scores_at_the_ends_of_the_type_do_not_overflow(device: torch.device) -> None:
    scores = torch.tensor([[3e38, -3e38, 0.25, 0.0]], device=device, requires_grad=True)
    alpha = soft_topk(scores, 2, temperature=1e-3)
    assert torch.equal(alpha.cpu(), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
    assert not torch.autograd.grad(alpha.sum(), scores)[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(device: torch.device, dtype: torch.dtype) -> None:
    scores = (torch.randn(4, 100) * 50 + 1000).to(device, dtype)
    alpha = soft_topk(scores, 7, temperature=0.3)
    assert alpha.dtype == dtype
    assert torch.equal(alpha, soft_topk(scores.float(), 7, temperature=0.3).to(dtype))


@pytest.mark.parametrize("k", [2, torch.tensor(2.0)], ids=str)
def test_sequences_without_tokens_and_batches_without_rows_are_supported(k: Any) -> None:
    for shape in ((3, 0), (0, 3), (2, 0, 3)):
        scores = torch.randn(shape, requires_grad=True)
        alpha = soft_topk(scores, k)
        assert alpha.shape == shape
        assert torch.autograd.grad(alpha.sum(), scores)[0].shape == shape


@pytest.mark.parametrize("dim", [0, 1, -1, -2, -3])
def test_rows_along_any_dimension_equal_rows_along_the_last(dim: int) -> None:
    scores, mask = torch.randn(4, 5, 6), torch.rand(4, 5, 6) < 0.8
    expected = soft_topk(scores.movedim(dim, -1), 2, mask=mask.movedim(dim, -1)).movedim(-1, dim)
    assert torch.equal(soft_topk(scores, 2, mask=mask, dim=dim), expected)
    k = torch.full_like(expected.sum(dim, keepdim=True), 2.0)
    torch.testing.assert_close(soft_topk(scores, k, mask=mask, dim=dim), expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_and_second_derivatives_are_correct(device: torch.device, masked: bool, temperature: float) -> None:
    # Drawn on the CPU, because a GPU draws other numbers, of which some may lie at a kink.
    scores = torch.randn(6, 12, dtype=torch.float64).to(device).requires_grad_()
    k = torch.tensor([1.0, 1.5, 2.0, 3.3, 5.0, 20.0], dtype=torch.float64, device=device, requires_grad=True)
    mask = (torch.rand(scores.shape) < 0.8).to(device) if masked else None

    def per_row(scores: Tensor, k: Tensor) -> Tensor:
        return soft_topk(scores, k, temperature=temperature, mask=mask)

    def one_for_all(scores: Tensor) -> Tensor:
        return soft_topk(scores, 3, temperature=temperature, mask=mask)

    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(per_row, (scores, k), eps=1e-7)
        assert check(one_for_all, (scores,), eps=1e-7)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("per_row", [False, True])
def test_compiles_as_one_graph_with_equal_gradients(per_row: bool, dynamic: bool) -> None:
    def function(scores: Tensor, k: Tensor | float, mask: Tensor) -> Tensor:
        return soft_topk(scores, k, temperature=0.5, mask=mask).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for number in (4, 2.5):
        scores, mask = torch.randn(5, 33, requires_grad=True), torch.rand(5, 33) < 0.8
        k = torch.full((5,), float(number)) if per_row else number
        (plain,) = torch.autograd.grad(function(scores, k, mask), scores)
        (ours,) = torch.autograd.grad(compiled(scores, k, mask), scores)
        torch.testing.assert_close(ours, plain)


def test_exports_with_dynamic_sizes() -> None:
    class Module(torch.nn.Module):
        def forward(self, scores: Tensor) -> Tensor:
            return soft_topk(scores, 3)

    sizes = {0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("tokens", min=4, max=64)}
    program = torch.export.export(Module(), (torch.rand(4, 9),), dynamic_shapes={"scores": sizes})
    scores = torch.randn(7, 12)
    torch.testing.assert_close(program.module()(scores), soft_topk(scores, 3))


def test_vmap_equals_the_batched_call() -> None:
    scores, k = torch.randn(3, 4, 9), torch.tensor([[1.0, 2.0, 2.5, 8.0]]).expand(3, 4)
    torch.testing.assert_close(torch.func.vmap(soft_topk)(scores, k), soft_topk(scores, k))
    along_first = torch.func.vmap(lambda scores: soft_topk(scores, 2, dim=0))
    torch.testing.assert_close(along_first(scores), soft_topk(scores, 2, dim=1))


def test_autocast_keeps_the_dtype_of_the_scores() -> None:
    scores = torch.randn(2, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        alpha = soft_topk(scores, 5)
    assert alpha.dtype == torch.float32
    assert torch.equal(alpha, soft_topk(scores, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": -1}, "k must be a finite number >= 0, or a tensor, got -1"),
        ({"k": float("nan")}, "k must be .*, got nan"),
        ({"k": float("inf")}, "k must be .*, got inf"),
        ({"k": "two"}, "k must be .*, got 'two'"),
        ({"k": torch.ones(3)}, r"k of shape \(3,\) does not broadcast to \(2,\) or \(2, 1\)"),
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be finite and > 0, got nan"),
        ({"temperature": torch.tensor(1.0)}, "temperature must be a number, got a tensor"),
        ({"scores": [1.0, 2.0]}, "scores must be a torch.Tensor, got list"),
        ({"scores": torch.ones(2, 3, dtype=torch.long)}, "scores must be float16.*torch.int64"),
        ({"dim": 2}, r"dim must be an integer in \[-2, 1\] for scores of shape \(2, 3\), got 2"),
        ({"mask": torch.ones(2, 4)}, r"mask of shape \(2, 4\) does not broadcast to \(2, 3\)"),
        ({"mask": torch.full((2, 3), 2)}, "mask must be bool, .* the values 2"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        soft_topk(**{"scores": torch.rand(2, 3), "k": 2, **arguments})


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3), st.integers(1, 8))
def test_the_largest_weights_are_kept_in_the_order_of_time(rows: list[list[int]], k: int) -> None:
    alpha = torch.tensor(rows) / 4
    tokens = torch.randn(len(rows), 6, 2)
    kept = keep_top(tokens, alpha, k)
    assert kept.indices.shape == (len(rows), min(k, 6))
    for sample, row in enumerate(rows):
        indices = kept.indices[sample].tolist()
        assert indices == sorted(set(indices))
        assert sorted(row[token] for token in indices) == sorted(row)[-len(indices) :]
        assert torch.equal(kept.tokens[sample], tokens[sample, indices])
        assert kept.mask[sample].tolist() == [row[token] > 0 for token in indices]


def test_kept_tokens_carry_the_whole_weight_where_no_more_than_k_have_any(device: torch.device) -> None:
    scores = torch.randn(8, 20, device=device)
    mask = torch.rand(8, 20, device=device) < 0.6
    alpha = soft_topk(scores, 3, mask=mask, temperature=0.05)
    tokens = torch.randn(8, 20, 4, device=device, requires_grad=True)
    kept = keep_top(tokens, alpha, 10)
    weights = alpha.gather(1, kept.indices)
    assert torch.equal(weights > 0, kept.mask)
    pooled = torch.einsum("bk,bkd->bd", weights, kept.tokens)
    expected = torch.einsum("bt,btd->bd", alpha, tokens)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(
        torch.autograd.grad(pooled.sum(), tokens)[0], torch.autograd.grad(expected.sum(), tokens)[0]
    )


def test_keeping_compiles_as_one_graph_and_vmaps() -> None:
    torch._dynamo.reset()
    tokens, alpha = torch.randn(3, 7, 2), soft_topk(torch.randn(3, 7), 2)
    compiled = torch.compile(keep_top, fullgraph=True, backend="aot_eager")
    several = torch.func.vmap(lambda tokens, alpha: tuple(keep_top(tokens, alpha, 4)))
    stacked = several(torch.stack([tokens, tokens]), torch.stack([alpha, alpha]))
    for ours, batched, expected in zip(compiled(tokens, alpha, 4), stacked, keep_top(tokens, alpha, 4), strict=True):
        assert torch.equal(ours, expected)
        assert torch.equal(batched[1], expected)


def test_batches_without_samples_or_tokens_are_kept_as_they_are() -> None:
    assert keep_top(torch.rand(0, 5, 2), torch.rand(0, 5), 3).tokens.shape == (0, 3, 2)
    assert keep_top(torch.rand(4, 0, 2), torch.rand(4, 0), 3).mask.shape == (4, 0)


@pytest.mark.parametrize(
    ("tokens", "alpha", "k", "message"),
    [
        (torch.rand(2, 3), torch.rand(2, 3), 1, r"tokens must have shape \(batch, tokens, width\), got \(2, 3\)"),
        (torch.rand(2, 3, 4), torch.rand(2, 4), 1, r"alpha must have shape \(2, 3\), got \(2, 4\)"),
        (torch.rand(2, 3, 4), [[1.0]], 1, "alpha must be a torch.Tensor, got list"),
        (torch.rand(2, 3, 4), torch.rand(2, 3), 0, "k must be an integer >= 1, got 0"),
        (torch.rand(2, 3, 4), torch.rand(2, 3), 1.5, "k must be an integer >= 1, got 1.5"),
    ],
)
def test_bad_arguments_of_keep_top_are_named(tokens: Any, alpha: Any, k: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keep_top(tokens, alpha, k)
