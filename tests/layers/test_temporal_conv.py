"""TemporalConvLevels: receptive fields, masked padding, and sequences of one token."""

import os
import shutil
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional

from multifuse import TemporalConvLevels
from multifuse._internal import devices


def encoder(num_levels: int = 3) -> TemporalConvLevels:
    torch.manual_seed(0)
    return TemporalConvLevels(4, 8, num_levels, dropout=0.2).eval()


def test_the_receptive_field_grows_as_documented() -> None:
    """Two convolutions of width 3 per level reach 3, 15 and 63 tokens to each side."""
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


def by_torch(layer: TemporalConvLevels, inputs: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
    """Computes the definition with torch's dilated one-dimensional convolutions."""
    hidden = layer.projection(inputs)
    levels = []
    for stage in layer.stages:
        update = stage.norm(hidden)  # type: ignore[operator]
        for conv in stage.convolutions:  # type: ignore[union-attr]
            update = update if mask is None else update * mask.unsqueeze(-1)
            step = conv.dilation[0]  # type: ignore[index]
            filtered = functional.conv1d(
                update.mT,
                conv.weight,
                conv.bias,
                padding=step,
                dilation=step,
                groups=conv.groups,  # type: ignore[arg-type]
            )
            update = functional.gelu(filtered).mT
        hidden = hidden + stage.mixer(update)  # type: ignore[operator]
        levels.append(hidden)
    return levels


@given(st.integers(1, 80), st.booleans(), st.booleans(), st.integers(0, 9))
def test_levels_and_gradients_match_torchs_dilated_convolutions(
    length: int, masked: bool, on_gpu: bool, seed: int
) -> None:
    """Lengths are below, at and above every dilation, and multiples of it or not; also by what runs on a GPU."""
    layer = encoder().double()
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, length, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, length, generator=generator) < 0.6 if masked else None
    with patch.object(devices, "is_gpu", lambda device: on_gpu):
        ours, expected = layer(inputs, mask), by_torch(layer, inputs, mask)
    weights = list(layer.parameters())
    for level, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(level, other)
    grads = [torch.autograd.grad(torch.stack(levels).square().sum(), weights) for levels in (ours, expected)]
    for grad, other in zip(*grads, strict=True):
        torch.testing.assert_close(grad, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_and_close(dtype: torch.dtype) -> None:
    inputs = torch.randn(2, 9, 4)
    for half, full in zip(encoder().to(dtype)(inputs.to(dtype)), encoder()(inputs), strict=True):
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.1)


def test_nan_stays_in_its_sample() -> None:
    inputs = torch.randn(2, 6, 4)
    inputs[0, 2, 1] = float("nan")
    for level in encoder()(inputs):
        assert level[0].isnan().any()
        assert level[1].isfinite().all()


def test_dropout_drops_whole_channels_of_a_sample() -> None:
    layer = TemporalConvLevels(4, 8, 1, dropout=0.5).train()
    dropped: list[torch.Tensor] = []
    layer.projection.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[0]))
    layer(torch.ones(16, 7, 4))
    assert set(dropped[0].unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(dropped[0], dropped[0][:, :1].expand_as(dropped[0]))


def test_stages_drop_channels_of_their_own_at_the_rate_and_scale_the_others() -> None:
    layer = TemporalConvLevels(4, 8, 3, dropout=0.25).train()
    for stage in layer.stages:  # without tokens of their own, the mixers give 3 at every token
        nn.init.zeros_(stage.mixer.weight)  # type: ignore[union-attr, arg-type]
        nn.init.constant_(stage.mixer.bias, 3.0)  # type: ignore[union-attr, arg-type]
    hidden: list[torch.Tensor] = []
    layer.projection.register_forward_hook(lambda _, __, output: hidden.append(output))
    levels = layer(torch.randn(500, 7, 4))
    residuals = [after - before for before, after in zip([*hidden, *levels], levels, strict=False)]
    kept = torch.stack([residual[:, 0] != 0 for residual in residuals])
    for residual, channels in zip(residuals, kept, strict=True):
        torch.testing.assert_close(residual, 4.0 * channels.unsqueeze(1).expand_as(residual), atol=1e-5, rtol=0)
    assert abs(kept.float().mean() - 0.75) < 0.02
    both = (kept[:-1] & kept[1:]).float().mean()  # 0.75 if every stage dropped the same channels
    assert abs(both - 0.75**2) < 0.02


def test_dropout_of_everything_leaves_the_bias_of_the_projection_and_none_in_eval_mode() -> None:
    layer = TemporalConvLevels(4, 8, 2, dropout=1.0).train()
    inputs = torch.randn(2, 5, 4)
    for level in layer(inputs):
        torch.testing.assert_close(level, layer.projection.bias.expand_as(level))
    kept = TemporalConvLevels(4, 8, 2).eval()
    kept.load_state_dict(layer.state_dict())
    for level, expected in zip(layer.eval()(inputs), kept(inputs), strict=True):
        assert torch.equal(level, expected)


@pytest.mark.parametrize("length", [1, 7, 33, 50])
def test_padding_of_nan_changes_no_real_token(length: int) -> None:
    inputs = torch.randn(2, length, 4)
    longer = torch.cat([inputs, torch.full((2, 3, 4), float("nan"))], 1)
    mask = torch.arange(length + 3).expand(2, -1) < length
    for short, long in zip(encoder()(inputs), encoder()(longer, mask), strict=True):
        torch.testing.assert_close(short, long[:, :length], atol=1e-5, rtol=1e-4)


def test_an_empty_sequence_stays_empty() -> None:
    assert [tuple(level.shape) for level in encoder()(torch.randn(2, 0, 4))] == [(2, 0, 8)] * 3


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(batch, tokens, 4\), got \(2, 3, 5\)"):
        encoder()(torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match="input_dim must be an integer >= 1, got 0"):
        TemporalConvLevels(0, 8)


@pytest.mark.parametrize("masked", [False, True])
def test_one_compiled_graph_takes_every_length(masked: bool) -> None:
    layer = encoder()
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(layer, backend=counter, dynamic=True, fullgraph=True)
    for length in (50, 33, 30, 17, 16, 9, 3, 100):
        inputs = torch.randn(2, length, 4)
        mask = torch.rand(2, length) < 0.7 if masked else None
        for level, expected in zip(compiled(inputs, mask), layer(inputs, mask), strict=True):
            torch.testing.assert_close(level, expected)
    assert counter.frame_count == 1


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor needs a C++ compiler")
def test_inductor_trains_every_length_by_one_graph() -> None:
    layer = encoder(2).train()
    layer.dropout.p = 0.0  # random numbers are drawn in another order
    torch._dynamo.reset()
    compiled = torch.compile(layer, dynamic=True, fullgraph=True)
    weights = list(layer.parameters())
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, length in ((3, 19), (2, 8), (5, 33)):
            inputs, mask = torch.randn(batch, length, 4), torch.rand(batch, length) < 0.7
            results = []
            for run in (compiled, layer):
                levels = torch.stack(run(inputs, mask))
                results.append([levels, *torch.autograd.grad(levels.square().sum(), weights)])
            for ours, expected in zip(*results, strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_the_length_stays_free_in_an_exported_encoder(masked: bool) -> None:
    layer = encoder()
    free = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("length", min=2, max=4096)}
    example = (torch.randn(3, 50, 4), torch.ones(3, 50, dtype=torch.bool))[: 1 + masked]
    exported = torch.export.export(layer, example, dynamic_shapes=(free, free)[: 1 + masked]).module()
    for size in (2, 7, 31, 100):
        inputs = (torch.randn(2, size, 4), torch.rand(2, size) < 0.6)[: 1 + masked]
        for level, expected in zip(exported(*inputs), layer(*inputs), strict=True):
            torch.testing.assert_close(level, expected)
