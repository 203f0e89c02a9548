"""The exchanges of all levels together: the same as one by one, and left aside where an exchange was changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from multifuse import IntraCED
from multifuse.layers.exchange_levels import can_exchange_together, exchange_levels
from multifuse.layers.inter_cad import InterCAD
from multifuse.layers.token_budget import TokenBudget
from tests.batches import Sizes, batch, padded, sizes

SIZES = Sizes(3, 14, 6, 5, 2, {"text": 5, "vision": 7, "audio": 1})


def exchanges(drawn: Sizes, count: int = 2, **options: float) -> list[IntraCED]:
    torch.manual_seed(1)
    ranks = {"shared_rank": drawn.shared_rank, "private_rank": drawn.private_rank, "num_heads": drawn.heads}
    layers = [IntraCED(drawn.dim, drawn.modalities, **ranks, **options).eval() for _ in range(count)]  # type: ignore[arg-type]
    for layer in layers:
        nn.init.normal_(layer.budget.threshold, std=0.5)
        nn.init.normal_(layer.output.bias)
    return layers


@given(sizes(), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.4, 1.0]))
def test_levels_together_equal_levels_one_by_one(drawn: Sizes, masked: bool, absent: bool, gamma: float) -> None:
    layers, (tokens, mask) = exchanges(drawn, gamma=gamma), batch(drawn)
    if absent:
        mask[drawn.modalities[0]][0] = False
    given_mask = mask if masked else {}
    levels = [tokens, {name: values * 2 for name, values in tokens.items()}]
    separate = [layer(level, given_mask) for layer, level in zip(layers, levels, strict=True)]
    codes = exchange_levels(layers, levels, given_mask)
    for ours, expected in zip(codes.outputs(), separate, strict=True):
        for field in ("shared_code", "private_code", "activation"):
            for name in drawn.modalities:
                torch.testing.assert_close(
                    getattr(ours, field)[name], getattr(expected, field)[name], atol=1e-5, rtol=1e-5
                )
    torch.manual_seed(2)
    aggregation = InterCAD(drawn.dim, drawn.modalities, num_levels=2)
    for linear in (aggregation.query, aggregation.gate_score):
        nn.init.normal_(linear.weight)
    torch.testing.assert_close(aggregation(codes, given_mask), aggregation(separate, given_mask), atol=1e-4, rtol=1e-4)


@given(sizes(), st.integers(1, 3), st.integers(1, 4))
def test_segments_of_codes_equal_segments_of_streams(drawn: Sizes, extra: int, segments: int) -> None:
    layers, (tokens, mask) = exchanges(drawn, 1), batch(drawn)
    tokens, mask = padded(tokens, mask, extra, 0.0)
    aggregation = InterCAD(drawn.dim, drawn.modalities, num_levels=1)
    of_codes = aggregation(exchange_levels(layers, [tokens], mask), mask, segments)
    torch.testing.assert_close(of_codes, aggregation([layers[0](tokens, mask)], mask, segments), atol=1e-4, rtol=1e-4)


def test_gradients_together_equal_those_one_by_one() -> None:
    layers, (tokens, mask) = exchanges(SIZES), batch(SIZES)
    weights = [weight for layer in layers for weight in layer.parameters()]

    def loss(codes: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([code.square().sum() for code in codes]).sum()

    together = exchange_levels(layers, [tokens, tokens], mask)
    separate = [layer(tokens, mask) for layer in layers]
    ours = torch.autograd.grad(loss([together.shared, together.private]), weights)
    codes = [code for level in separate for code in (*level.shared_code.values(), *level.private_code.values())]
    torch.testing.assert_close(ours, torch.autograd.grad(loss(codes), weights), atol=1e-4, rtol=1e-4)


def hooked(layer: IntraCED) -> nn.Module:
    layer.output.register_forward_hook(lambda module, inputs, output: output * 0)
    return layer


def replaced(layer: IntraCED) -> nn.Module:
    layer.query_key_value = nn.Sequential(layer.query_key_value)  # type: ignore[assignment]
    return layer


def parametrized(layer: IntraCED) -> nn.Module:
    weight_norm(layer.output)
    return layer


def patched(layer: IntraCED) -> nn.Module:
    layer.output.forward = lambda values: values * 0  # type: ignore[method-assign, assignment]
    return layer


def compiled_in_place(layer: IntraCED) -> nn.Module:
    layer.query_key_value.compile(backend="eager")
    return layer


def without_dropout(layer: IntraCED) -> nn.Module:
    layer.dropout = nn.Identity()  # type: ignore[assignment]
    return layer


def without_bias(layer: IntraCED) -> nn.Module:
    layer.output.bias = None  # type: ignore[assignment]
    return layer


def with_dropout(layer: IntraCED) -> nn.Module:
    layer.dropout.p = 0.5
    return layer.train()


class Subclass(IntraCED):
    """An exchange that may do something else."""


def of_a_subclass(layer: IntraCED) -> nn.Module:
    layer.__class__ = Subclass
    return layer


def in_double(layer: IntraCED) -> nn.Module:
    layer.projector.double()
    return layer


def another_gamma(layer: IntraCED) -> nn.Module:
    layer.budget.gamma = 0.5
    return layer


CHANGES: list[Callable[[IntraCED], Any]] = [
    *(torch.compile, nn.Sequential, hooked, replaced, parametrized, another_gamma, patched, compiled_in_place),
    *(without_dropout, without_bias, with_dropout, of_a_subclass, in_double),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_not_computed_together(change: Callable[[IntraCED], nn.Module]) -> None:
    layers = exchanges(SIZES)
    assert can_exchange_together(layers)
    assert not can_exchange_together([layers[0], change(layers[1])])


def test_a_hook_of_all_modules_sees_every_exchange() -> None:
    seen: list[str] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        assert not can_exchange_together(exchanges(SIZES))
    finally:
        handle.remove()


@pytest.mark.parametrize("change", [without_dropout, with_dropout])
def test_a_replaced_dropout_is_called(change: Callable[[IntraCED], nn.Module]) -> None:
    layer, (tokens, mask) = exchanges(SIZES, 1)[0], batch(SIZES)
    expected = layer(tokens, mask)
    change(layer)
    assert layer(tokens, mask).shared_code["text"].shape == expected.shared_code["text"].shape
    layer.dropout = nn.Dropout(1.0)  # type: ignore[assignment]
    silent = layer.train()(tokens, mask)
    for name, values in tokens.items():
        torch.testing.assert_close(silent.tokens[name], values)


class ClosedBudget(TokenBudget):
    def forward(self, evidence: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(evidence, mask) * 0


class EvenBudget(nn.Module):
    """Half of every token, without any of the fields of `TokenBudget`."""

    def forward(self, evidence: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.full_like(evidence, 0.5) if mask is None else 0.5 * mask.to(evidence.dtype)


def test_a_budget_may_be_any_module() -> None:
    layer, (tokens, mask) = exchanges(SIZES, 1)[0], batch(SIZES)
    layer.budget = EvenBudget()  # type: ignore[assignment]
    for alpha in layer(tokens, mask).activation.values():
        assert set(alpha.unique().tolist()) <= {0.0, 0.5}
    assert "gamma=1.0" in repr(layer)


def test_a_budget_that_was_replaced_or_hooked_is_called() -> None:
    layer, (tokens, mask) = exchanges(SIZES, 1)[0], batch(SIZES)
    expected = layer(tokens, mask)
    handle = layer.budget.register_forward_hook(lambda module, inputs, output: output)
    hooked_output = layer(tokens, mask)
    for name, alpha in expected.activation.items():
        torch.testing.assert_close(hooked_output.activation[name], alpha)
        torch.testing.assert_close(hooked_output.tokens[name], expected.tokens[name])
    hooked_output = layer(tokens)
    handle.remove()
    for name, alpha in layer(tokens).activation.items():  # modalities of several lengths, and no mask
        torch.testing.assert_close(hooked_output.activation[name], alpha)
    layer.budget = ClosedBudget()
    closed = layer(tokens, mask)
    for name, values in tokens.items():
        assert not closed.activation[name].any()
        torch.testing.assert_close(closed.tokens[name], values)
    assert not can_exchange_together([layer])


def test_the_order_of_a_dict_of_tokens_changes_nothing() -> None:
    layers, (tokens, mask) = exchanges(SIZES), batch(SIZES)
    other = dict(reversed(tokens.items()))
    codes, expected = (exchange_levels(layers, [first, tokens], mask) for first in (other, tokens))
    torch.testing.assert_close(codes.shared, expected.shared)
    assert list(codes.packing.lengths) == list(SIZES.modalities)


def test_codes_of_another_number_of_levels_are_refused() -> None:
    layers, (tokens, mask) = exchanges(SIZES, 1), batch(SIZES)
    with pytest.raises(ValueError, match="levels must hold 2 levels, got 1"):
        InterCAD(SIZES.dim, SIZES.modalities, num_levels=2)(exchange_levels(layers, [tokens], mask), mask)
