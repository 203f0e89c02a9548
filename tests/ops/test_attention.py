"""`attend_others`, compiled and by torch: its definition, masks, derivatives, and what torch requires of an op."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from multifuse._internal import devices
from multifuse.ops import attention, native
from multifuse.ops.attention import attend_others, by_torch
from multifuse.ops.transforms import runs_compiled

Attention = Callable[..., Tensor]


def definition(
    query_key_value: Tensor, lengths: tuple[int, ...], heads: int, mask: Tensor | None, asking: Tensor | None
) -> Tensor:
    """Computes the attention by sample, head and query, in float64."""
    batch, tokens, width = query_key_value.shape
    queries, keys, values = query_key_value.double().unflatten(-1, (3, heads, -1)).unbind(2)
    modality = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    out = torch.zeros(batch, tokens, heads, width // 3 // heads, dtype=torch.float64)
    for sample in range(batch):
        for token in range(tokens):
            reached = modality != modality[token]
            reached = reached if mask is None else reached & mask[sample]
            if not reached.any() or (asking is not None and not asking[sample, token]):
                continue
            for head in range(heads):
                scores = keys[sample, reached, head] @ queries[sample, token, head] * queries.shape[-1] ** -0.5
                out[sample, token, head] = scores.softmax(0) @ values[sample, reached, head]
    return out.flatten(2)


def drawn(
    seed: int, lengths: tuple[int, ...], heads: int, width: int, masked: bool, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    query_key_value = 2 * torch.randn(2, sum(lengths), 3 * heads * width, generator=generator)
    if not masked:
        return query_key_value.to(dtype), None, None
    mask, asking = torch.rand(2, 2, sum(lengths), generator=generator).unbind()
    mask = mask < 0.6
    mask[0, : lengths[0]] = False
    return query_key_value.to(dtype), mask, asking < 0.7


@pytest.fixture(params=["dispatched", "by torch"])
def attend(request: pytest.FixtureRequest, device: torch.device) -> Attention:
    """Returns the attention on each device and path; its results are on the CPU."""
    path = attend_others if request.param == "dispatched" else by_torch

    def attended(
        query_key_value: Tensor, lengths: Sequence[int], heads: int, mask: Tensor | None, asking: Tensor | None
    ) -> Tensor:
        masks = (None if value is None else value.to(device) for value in (mask, asking))
        return path(query_key_value.to(device), lengths, heads, *masks).cpu()

    return attended


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 19),
    st.booleans(),
    st.integers(0, 9),
)
def test_attention_is_the_softmax_over_the_other_modalities_real_tokens(
    lengths: list[int], heads: int, width: int, masked: bool, seed: int
) -> None:
    query_key_value, mask, asking = drawn(seed, tuple(lengths), heads, width, masked)
    expected = definition(query_key_value, tuple(lengths), heads, mask, asking)
    for attend in (attend_others, by_torch):
        ours = attend(query_key_value, lengths, heads, mask, asking)
        torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_equally_long_modalities_attend_in_one_call_on_a_gpu(
    count: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = (7,) * count
    query_key_value, mask, asking = drawn(3, lengths, 2, 5, masked, torch.float64)
    query_key_value.requires_grad_()
    expected = definition(query_key_value, lengths, 2, mask, asking)
    monkeypatch.setattr(devices, "is_gpu", lambda device: True)
    with patch.object(attention, "scaled_dot_product_attention", wraps=scaled_dot_product_attention) as called:
        ours = by_torch(query_key_value, lengths, 2, mask, asking)
    assert called.call_count == 1
    torch.testing.assert_close(ours, expected)
    grads = [torch.autograd.grad(values.sin().sum(), query_key_value)[0] for values in (ours, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("width", [5, 8, 12])
def test_heads_that_are_padded_for_a_gpus_kernel_give_the_same(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query_key_value, mask, asking = drawn(0, (17, 0, 30), 2, width, True, torch.float64)
    query_key_value.requires_grad_()
    expected = by_torch(query_key_value, (17, 0, 30), 2, mask, asking)
    monkeypatch.setattr(attention, "_alignment", lambda values: 8)
    ours = by_torch(query_key_value, (17, 0, 30), 2, mask, asking)
    torch.testing.assert_close(ours, expected)
    grads = [torch.autograd.grad(values.square().sum(), query_key_value)[0] for values in (ours, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gradients_match_torchs_attention(masked: bool, dtype: torch.dtype) -> None:
    lengths = (17, 5, 30)
    query_key_value, mask, asking = drawn(0, lengths, 2, 12, masked, dtype)
    query_key_value.requires_grad_()
    grad = torch.randn(2, 52, 24).to(dtype)
    (ours,) = torch.autograd.grad(attend_others(query_key_value, lengths, 2, mask, asking), query_key_value, grad)
    in_float64 = query_key_value.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(by_torch(in_float64, lengths, 2, mask, asking), in_float64, grad.double())
    error = (ours.double() - expected).abs().max() / expected.abs().max()
    assert error < {torch.float64: 1e-12, torch.float32: 2e-6}.get(dtype, 8e-3)


def test_first_and_second_derivatives_are_correct() -> None:
    query_key_value, mask, asking = drawn(1, (3, 2), 1, 2, True, torch.float64)
    query_key_value.requires_grad_()

    def function(values: Tensor) -> Tensor:
        return attend_others(values, (3, 2), 1, mask, asking)

    assert torch.autograd.gradcheck(function, query_key_value)
    assert torch.autograd.gradgradcheck(function, query_key_value)


def test_masked_keys_and_unneeded_queries_receive_no_gradient(attend: Attention) -> None:
    query_key_value, mask, asking = drawn(2, (6, 7), 2, 4, True)
    assert mask is not None
    assert asking is not None
    expected = attend(query_key_value, (6, 7), 2, mask, asking)
    query_key_value.requires_grad_()
    attended = attend(query_key_value, (6, 7), 2, mask, asking)
    torch.testing.assert_close(attended, expected)
    (grad,) = torch.autograd.grad(attended.sum(), query_key_value)
    queries, keys, values = grad.chunk(3, dim=-1)
    assert not queries[~asking].any()
    assert not keys[~mask].any()
    assert not values[~mask].any()


def test_nan_in_masked_tokens_does_not_affect_the_compiled_operator() -> None:
    """torch's attention multiplies masked values by 0; IntraCED therefore zeroes padding before it calls either."""
    query_key_value, mask, asking = drawn(2, (6, 7), 2, 4, True)
    assert mask is not None
    assert asking is not None
    expected = attend_others(query_key_value, (6, 7), 2, mask, asking)
    query_key_value[(~mask & ~asking)] = float("nan")
    if runs_compiled(query_key_value):
        torch.testing.assert_close(attend_others(query_key_value, (6, 7), 2, mask, asking), expected)


def test_large_scores_do_not_overflow(attend: Attention) -> None:
    query_key_value = torch.zeros(1, 3, 3)
    query_key_value[0, :, 0] = 1e4
    query_key_value[0, :, 1] = torch.tensor([0.0, -1e4, 1e4])
    query_key_value[0, :, 2] = torch.tensor([0.0, 5.0, 7.0])
    attended = attend(query_key_value, (1, 2), 1, None, None)
    assert torch.equal(attended[0, :, 0], torch.tensor([7.0, 0.0, 0.0]))


def test_a_non_finite_gradient_reaches_only_the_other_modalities(attend: Attention) -> None:
    query_key_value = torch.randn(1, 5, 6, requires_grad=True)
    grad = torch.zeros(1, 5, 2)
    grad[0, 0, 0] = float("inf")
    (pulled,) = torch.autograd.grad(attend(query_key_value, [2, 3], 1, None, None), query_key_value, grad)
    assert pulled[0, :2, 2:].isfinite().all()
    assert not pulled[0, 2:, 4:].isfinite().all()


def test_a_single_modality_has_zero_output_and_gradient(attend: Attention) -> None:
    query_key_value = torch.randn(1, 5, 6, requires_grad=True)
    attended = attend(query_key_value, [5], 1, None, None)
    (grad,) = torch.autograd.grad(attended.sum(), query_key_value, create_graph=True)
    assert not attended.any()
    assert not grad.any()


def test_nan_stays_in_its_sample(attend: Attention) -> None:
    query_key_value, _, _ = drawn(3, (4, 5), 2, 3, False)
    query_key_value[0, 2] = float("nan")
    attended = attend(query_key_value, (4, 5), 2, None, None)
    assert attended[0, 4:].isnan().all()
    assert attended[1].isfinite().all()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_passes_for_both_ops(requires_grad: bool) -> None:
    query_key_value, mask, asking = drawn(4, (3, 4), 2, 3, True)
    attended, log_sum = torch.ops.multifuse.attend_others.default(query_key_value, [3, 4], 2, mask, asking)
    grad = torch.randn_like(attended).requires_grad_(requires_grad)
    query_key_value.requires_grad_(requires_grad)
    for keep, ask in ((None, None), (mask, asking)):
        torch.library.opcheck(torch.ops.multifuse.attend_others.default, (query_key_value, [3, 4], 2, keep, ask))
    arguments = (grad, query_key_value, attended, log_sum, [3, 4], 2, mask, asking)
    torch.library.opcheck(torch.ops.multifuse.attend_others_vjp.default, arguments)


def test_vmap_equals_a_loop_over_the_batch() -> None:
    query_key_value = torch.randn(3, 2, 7, 12)
    batched = torch.vmap(lambda one: attend_others(one, (3, 4), 2))(query_key_value)
    torch.testing.assert_close(batched, torch.stack([attend_others(one, (3, 4), 2) for one in query_key_value]))


def test_compiles_as_one_graph_with_equal_gradients() -> None:
    query_key_value, mask, asking = drawn(5, (3, 4), 2, 3, True)
    query_key_value.requires_grad_()

    def function(values: Tensor) -> Tensor:
        return attend_others(values, (3, 4), 2, mask, asking).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    (ours,) = torch.autograd.grad(compiled(query_key_value), query_key_value)
    torch.testing.assert_close(ours, torch.autograd.grad(function(query_key_value), query_key_value)[0])


def test_wrong_shapes_are_named() -> None:
    attend = torch.ops.multifuse.attend_others.default
    with pytest.raises(RuntimeError, match="lengths must add up to the tokens, 5, add up to 7"):
        attend(torch.randn(1, 5, 6), [3, 4], 1, None, None)
    with pytest.raises(RuntimeError, match=r"mask must be bool of shape \(1, 5\), has 2 dimensions and 4 elements"):
        attend(torch.randn(1, 5, 6), [3, 2], 1, torch.ones(1, 4, dtype=torch.bool), None)


_WITHOUT_KERNELS = """
import torch
from multifuse.ops import attention

torch.manual_seed(0)
inputs, lengths = torch.randn(2, 7, 12), [3, 4]
mask = torch.rand(2, 7) < 0.7
attended = torch.ops.multifuse.attend_others(inputs, lengths, 2, mask, None)[0]
torch.testing.assert_close(attended, attention.by_torch(inputs, lengths, 2, mask, None))
"""


def test_the_operator_runs_where_no_kernel_was_built() -> None:
    """An exported program holds the operator, and may be loaded on another machine."""
    environment = {**os.environ, native.FALLBACK_VARIABLE: "1"}
    subprocess.run([sys.executable, "-c", _WITHOUT_KERNELS], env=environment, check=True)


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_large_scores_neither_overflow_nor_revive_weights_that_have_vanished(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 40, 3 * 2 * 9, generator=generator)
    inputs[..., : 2 * 2 * 9] *= scale  # queries and keys
    expected = definition(inputs, (17, 23), 2, None, None)
    torch.testing.assert_close(attend_others(inputs, (17, 23), 2).double(), expected, atol=1e-2, rtol=0)
    exact = inputs.double().requires_grad_()
    ours = inputs.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(by_torch(exact, (17, 23), 2, None, None).sin().sum(), exact)
    (grad,) = torch.autograd.grad(attend_others(ours, (17, 23), 2).sin().sum(), ours)
    assert grad.isfinite().all()
    assert (grad.double() - wanted).abs().max() < 1e-2 * wanted.abs().max()
