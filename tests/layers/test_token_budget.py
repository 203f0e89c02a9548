"""TokenBudget: feasibility, standardised evidence, and the effect of gamma, masks and equal tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse import TokenBudget
from multifuse.layers.token_budget import standardised


@given(st.integers(1, 5), st.integers(1, 30), st.floats(0, 2), st.floats(0.05, 0.95), st.integers(0, 99))
def test_activation_is_within_the_budget_and_zero_at_padding(
    batch: int, length: int, gamma: float, participation: float, seed: int
) -> None:
    torch.manual_seed(seed)
    mask = torch.rand(batch, length) < 0.7
    alpha = TokenBudget(gamma, participation)(torch.rand(batch, length) * 5, mask)
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert not alpha[~mask].any()
    assert (alpha.sum(-1) <= gamma * participation * mask.sum(-1) + 1e-4).all()


def test_the_budget_binds_at_initialisation() -> None:
    alpha = TokenBudget()(torch.rand(64, 50) * 3 + 1)
    assert torch.allclose(alpha.mean(-1), torch.full((64,), 0.68), atol=1e-3)


def test_evidence_is_standardised_over_real_tokens_only() -> None:
    evidence = torch.rand(3, 20) + 5
    mask = torch.arange(20) < torch.tensor([[20], [7], [1]])
    scores = standardised(evidence.masked_fill(~mask, 0.0), mask)
    for row, count in ((0, 20), (1, 7)):
        assert abs(float(scores[row, :count].mean())) < 1e-5
        assert abs(float(scores[row, :count].std(correction=0)) - 1) < 1e-3
    assert not scores[2].any()


@pytest.mark.parametrize("value", [0.0, 1e-6, 3.3, 1e6])
def test_equal_tokens_score_zero(value: float) -> None:
    evidence = torch.full((2, 9), value)
    assert standardised(evidence, None).abs().max() < 1e-2


def test_gradients_are_finite_on_equal_empty_and_zero_evidence() -> None:
    evidence = torch.stack([torch.full((6,), 2.0), torch.rand(6), torch.zeros(6)]).requires_grad_()
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1] = False
    budget = TokenBudget()
    budget(evidence, mask).square().sum().backward()
    assert evidence.grad is not None
    assert evidence.grad.isfinite().all()
    assert not evidence.grad[1].any()
    assert all(p.grad is not None and p.grad.isfinite() for p in budget.parameters())


def test_gamma_zero_closes_the_exchange() -> None:
    assert not TokenBudget(gamma=0.0)(torch.rand(2, 5)).any()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="gamma must be finite and >= 0, got -1"):
        TokenBudget(gamma=-1)
    with pytest.raises(ValueError, match=r"init_participation must be in \(0, 1\), got 1"):
        TokenBudget(init_participation=1)
    with pytest.raises(ValueError, match=r"evidence must be floating point of shape .* got torch.float32 \(3,\)"):
        TokenBudget()(torch.rand(3))
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 3\), got \(2, 4\)"):
        TokenBudget()(torch.rand(2, 3), torch.ones(2, 4, dtype=torch.bool))
