"""Attention of every modality's queries to the keys of all the other modalities, as a function.

On a CPU it is one compiled operator, which keeps no T x T tensor, copies no keys, and skips masked keys and queries
that are not needed. Elsewhere torch's fused attention runs, once per modality, or once for all that are equally long.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from multifuse._internal import devices
from multifuse._internal.packing import are_equal
from multifuse.ops.library import LIBRARY
from multifuse.ops.portable import compute_dtype
from multifuse.ops.transforms import is_transformed, pulled_back, runs_compiled


def attend_others(
    query_key_value: Tensor,
    lengths: Sequence[int],
    num_heads: int,
    mask: Tensor | None = None,
    asking: Tensor | None = None,
) -> Tensor:
    r"""Computes ``softmax(Q^m K^{-m T} / sqrt(width)) V^{-m}``, head by head, for every modality m.

    Args:
        query_key_value: (B, T, 3 r), the tokens of the modalities one after the other, for each token its query, key
            and value, each of ``num_heads`` heads of width r / num_heads. float16, bfloat16 (both computed in float32),
            float32 or float64.
        lengths: the number of tokens of every modality, T in all.
        num_heads: divides r.
        mask: (B, T) bool, True = real token: the keys that are attended to; ``None``: all.
        asking: (B, T) bool: the queries that are computed; ``None``: all.

    Returns:
        (B, T, r): 0 for a query that is not computed, and for a sample whose other modalities have no real token.
        Differentiable to every order on a CPU with kernels and under transforms; elsewhere as torch's fused attention
        is, once.

    Raises:
        RuntimeError: lengths that do not add up to T, masks of another shape.

    Source: CLCR (arXiv 2602.19605), ``Attn(Q^m, K^{-m}, V^{-m})`` in IntraCED.
    """
    if runs_compiled(query_key_value):
        attended: Tensor = _attend(query_key_value, list(lengths), num_heads, mask, asking)[0]
        return attended
    # torch's fused kernels have neither forward derivatives nor batching rules.
    with sdpa_kernel(SDPBackend.MATH) if is_transformed() else nullcontext():
        return by_torch(query_key_value, lengths, num_heads, mask, asking)


def by_torch(
    query_key_value: Tensor, lengths: Sequence[int], num_heads: int, mask: Tensor | None, asking: Tensor | None
) -> Tensor:
    """Computes `attend_others` by torch's attention."""
    heads = query_key_value.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, T, width)
    width = heads.shape[-1]
    missing = -width % _alignment(heads)
    if missing:
        heads = pad(heads, (0, missing))
    at_once = devices.is_gpu(heads.device) and len(lengths) > 1 and are_equal(lengths)
    attended, blocked = (_at_once if at_once else _one_by_one)(heads, lengths, mask, width**-0.5)
    joined = attended[..., :width].transpose(1, 2).flatten(2)
    zeroed = [] if blocked is None else [blocked]
    if asking is not None:
        zeroed.append(~asking)
    return joined if not zeroed else joined.masked_fill(reduce(torch.logical_or, zeroed).unsqueeze(-1), 0.0)


def _at_once(heads: Tensor, lengths: Sequence[int], mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor | None]:
    """Attends for all modalities, which have equally many tokens, in one call: each has heads of its own.

    Returns what `_one_by_one` does.
    """
    count = len(lengths)
    others = [other for modality in range(count) for other in range(count) if other != modality]
    queries, keys_values = heads.split([1, 2])
    queries = queries.squeeze(0).unflatten(2, (count, -1)).flatten(1, 2)  # (B, heads M, T_m, width)
    of_modality = keys_values.split(list(lengths), dim=3)
    joined = torch.cat([of_modality[other] for other in others], dim=3)
    keys, values = joined.unflatten(3, (count, -1)).flatten(2, 3).unbind()
    reached, blocked = None, None
    if mask is not None:
        real = mask.split(list(lengths), dim=1)
        reached = torch.cat([real[other] for other in others], dim=1).unflatten(1, (count, -1))
        reached, alone = _reached(reached)
        blocked = alone.expand(-1, -1, lengths[0]).flatten(1)
        reached = reached[:, None, :, None].expand(-1, heads.shape[2], -1, -1, -1).flatten(1, 2)
    attended = scaled_dot_product_attention(queries, keys, values, reached, scale=scale)
    return attended.unflatten(1, (-1, count)).flatten(2, 3), blocked


def _one_by_one(
    heads: Tensor, lengths: Sequence[int], mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Attends for one modality after the other.

    Returns the results of all queries (B, heads, T, width), and which are 0 (B, T); ``None``: none.
    """
    queries, keys_values = heads.split([1, 2])
    queries_of, keys_values_of = queries.squeeze(0).split(list(lengths), dim=2), keys_values.split(list(lengths), dim=3)
    real = None if mask is None else mask.split(list(lengths), dim=1)
    attended, blocked = [], []
    for modality, length in enumerate(lengths):
        others = [other for other in range(len(lengths)) if other != modality and lengths[other] > 0]
        if not others:
            nothing = heads.new_ones((), dtype=torch.bool)
            attended.append(queries_of[modality].masked_fill(nothing, 0.0))
            blocked.append(nothing.expand(heads.shape[1], length))
            continue
        keys, values = torch.cat([keys_values_of[other] for other in others], dim=3).unbind()
        reached = None
        if real is not None:
            reached, alone = _reached(torch.cat([real[other] for other in others], dim=1))
            blocked.append(alone.expand(-1, length))
            reached = reached[:, None, None]
        attended.append(scaled_dot_product_attention(queries_of[modality], keys, values, reached, scale=scale))
    return torch.cat(attended, dim=2), None if real is None else torch.cat(blocked, dim=1)


def _reached(real: Tensor) -> tuple[Tensor, Tensor]:
    """Returns which keys (..., T) are attended to, and which samples have none, (..., 1).

    A sample without keys attends to all of them, so that nothing is 0 / 0, and is zeroed afterwards.
    """
    alone = ~real.any(dim=-1, keepdim=True)
    return real | alone, alone


def _alignment(values: Tensor) -> int:
    """Returns what the width of a head must be a multiple of.

    Of torch's kernels for a GPU, the memory-efficient one alone takes masks, and it needs heads of whole 16 bytes
    (pytorch/pytorch#110630). Without it, torch would make a T x T tensor.
    """
    return 16 // values.itemsize if values.is_cuda else 1


def _portable(
    query_key_value: Tensor, lengths: list[int], heads: int, mask: Tensor | None, asking: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Computes the operator's forward where there is no compiled kernel, as an exported program may be loaded there."""
    attended = by_torch(query_key_value, lengths, heads, mask, asking)
    batch, tokens, _ = query_key_value.shape
    # The logarithms of the sums are read by the compiled backward only.
    return attended, attended.new_zeros(batch, heads, tokens, dtype=compute_dtype(attended.dtype))


LIBRARY.impl("attend_others", _portable, "CompositeExplicitAutograd")
_attend = torch.ops.multifuse.attend_others.default
_attend_vjp = torch.ops.multifuse.attend_others_vjp.default


@torch.library.register_fake("multifuse::attend_others", lib=LIBRARY)
def _attend_fake(
    query_key_value: Tensor, lengths: list[int], heads: int, mask: Tensor | None, asking: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, tokens, width = query_key_value.shape
    torch._check(width % (3 * heads) == 0, lambda: f"query_key_value must be 3 * {heads} * width wide, is {width}")
    attended = query_key_value.new_empty(batch, tokens, width // 3)
    return attended, attended.new_empty(batch, heads, tokens, dtype=compute_dtype(attended.dtype))


@torch.library.register_fake("multifuse::attend_others_vjp", lib=LIBRARY)
def _attend_vjp_fake(grad: Tensor, query_key_value: Tensor, *others: Any) -> Tensor:
    return query_key_value.new_empty(query_key_value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query_key_value, ctx.lengths, ctx.heads, mask, asking = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(query_key_value, *output, mask, asking)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
    query_key_value, attended, log_sum, mask, asking = ctx.saved_tensors
    pulled = _attend_vjp(grad, query_key_value, attended, log_sum, ctx.lengths, ctx.heads, mask, asking)
    return pulled, None, None, None, None


def _save_vjp(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, query_key_value, _, _, ctx.lengths, ctx.heads, mask, asking = inputs
    ctx.save_for_backward(grad, query_key_value, mask, asking)


def _vjp_backward(ctx: Any, grad_of_vjp: Tensor) -> tuple[Tensor | None, ...]:
    grad, query_key_value, mask, asking = ctx.saved_tensors

    def vjp(grad: Tensor, query_key_value: Tensor) -> tuple[Tensor, ...]:
        attended = by_torch(query_key_value, ctx.lengths, ctx.heads, mask, asking)
        return torch.autograd.grad(attended, query_key_value, grad, create_graph=True)

    with sdpa_kernel(SDPBackend.MATH):
        grads = pulled_back(vjp, [grad, query_key_value], [grad_of_vjp])
    return (*grads, None, None, None, None, None, None)


torch.library.register_autograd("multifuse::attend_others", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("multifuse::attend_others_vjp", _vjp_backward, setup_context=_save_vjp, lib=LIBRARY)
