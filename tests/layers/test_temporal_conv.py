"""TemporalConvLevels: receptive fields that grow, masked padding, and sequences of one token."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse import TemporalConvLevels


def encoder(num_levels: int = 3) -> TemporalConvLevels:
    torch.manual_seed(0)
    return TemporalConvLevels(4, 8, num_levels, dropout=0.2).eval()


def test_the_receptive_field_grows_as_stated() -> None:
    """Two convolutions of width 3 reach 3, then 15, then 63 tokens to each side."""
    inputs = torch.randn(1, 201, 4, requires_grad=True)
    for level, reach in zip(encoder()(inputs), (3, 15, 63), strict=True):
        (grad,) = torch.autograd.grad(level[0, 100].sum(), inputs, retain_graph=True)
        touched = grad[0].abs().sum(-1).nonzero().flatten()
        assert (int(touched.min()), int(touched.max())) == (100 - reach, 100 + reach)


@given(st.integers(1, 9), st.integers(1, 40), st.floats(-1e3, 1e3))
def test_padding_changes_nothing(length: int, extra: int, fill: float) -> None:
    inputs = torch.randn(2, length, 4)
    longer = torch.cat([inputs, torch.full((2, extra, 4), fill)], 1)
    mask = torch.arange(length + extra).expand(2, -1) < length
    for short, long in zip(encoder()(inputs), encoder()(longer, mask), strict=True):
        assert torch.allclose(short, long[:, :length], atol=1e-4)


def test_one_token_equals_the_first_of_a_masked_pair() -> None:
    inputs = torch.randn(3, 1, 4)
    pair, mask = torch.cat([inputs, inputs], 1), torch.tensor([[True, False]]).expand(3, 2)
    for one, two in zip(encoder()(inputs), encoder()(pair, mask), strict=True):
        assert one.shape == (3, 1, 8)
        assert torch.allclose(one[:, 0], two[:, 0], atol=1e-5)


@given(st.integers(2, 40))
def test_a_stage_is_torchs_convolutions(length: int) -> None:
    """The one-dimensional convolutions run as two-dimensional ones; both are the same sums."""
    layer = encoder(1)
    inputs = torch.randn(2, length, 4)
    hidden = layer.projection(inputs)
    stage: Any = layer.stages[0]
    update = stage.norm(hidden)
    for convolution in stage.convolutions:
        update = torch.nn.functional.gelu(convolution(update.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(layer(inputs)[0], hidden + stage.mixer(update))


def test_dropout_takes_whole_channels_of_a_sample() -> None:
    layer = TemporalConvLevels(4, 8, 1, dropout=0.5).train()
    seen: list[torch.Tensor] = []
    layer.projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layer(torch.ones(16, 7, 4))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(seen[0], seen[0][:, :1].expand_as(seen[0]))


def test_a_sequence_of_no_tokens_stays_empty() -> None:
    assert [tuple(level.shape) for level in encoder()(torch.randn(2, 0, 4))] == [(2, 0, 8)] * 3


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(batch, tokens, 4\), got \(2, 3, 5\)"):
        encoder()(torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match="input_dim must be an integer >= 1, got 0"):
        TemporalConvLevels(0, 8)
