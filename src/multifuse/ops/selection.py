"""Selection of tokens: weights that sum to k for training, and the k tokens with the largest weights for inference."""

import math
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from multifuse._internal import checks
from multifuse._internal.exportable import exportable
from multifuse.ops.projection import projected
from multifuse.ops.rows import Rows, checked_rows, moved_back


@exportable
class KeptTokens(NamedTuple):
    """The tokens that `keep_top` keeps, in the order in which they came."""

    tokens: Tensor
    """(B, k, d)."""
    mask: Tensor
    """(B, k) bool, False where alpha was 0: there were fewer than k tokens to keep."""
    indices: Tensor
    """(B, k), where in the sequence each token was, ascending."""


def soft_topk(
    scores: Tensor,
    k: Tensor | float,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    dim: int = -1,
) -> Tensor:
    r"""Solves, for every row of ``scores`` along ``dim``,

    .. math:: \min_\alpha \|\alpha - \text{scores} / \text{temperature}\|_2^2
        \quad\text{subject to}\quad 0 \le \alpha_t \le 1,\ \sum_t \alpha_t = k .

    These are the weights of a differentiable top-k: they sum to k, and tokens with low scores have a weight of exactly
    0. With ``k=1`` they are sparsemax. For an integer k they are 1 for the k largest scores and 0 for the others once
    the temperature is below the gap between these two groups; as it grows they all become k / T. A constant added to
    the scores changes nothing.

    Args:
        scores: (..., T), or with T at ``dim``; float16, bfloat16 (both computed in float32), float32 or float64.
            ``-inf`` is a masked token, ``+inf`` counts as the largest finite number and receives no gradient. NaN in a
            real token makes its own row NaN, and no other row.
        k: a number >= 0, not necessarily an integer, or a tensor with one number per row, of the shapes that
            `project_capped_simplex` accepts for ``budget``. Where a row has no more than k real tokens, each has the
            weight 1. In a tensor, 0 or less gives zeros.
        temperature: a number > 0. For one that is learned, divide the scores by it.
        mask: broadcasts to ``scores.shape``; True or 1 = real token, False or 0 = padding. Padding gets exactly 0 and
            receives no gradient, and so does a row without a real token.
        dim: the dimension of the tokens, over which the weights sum to k.

    Returns:
        alpha, with the shape and dtype of ``scores``. Differentiable in ``scores`` and in a tensor ``k``, to every
        order: with A = {0 < alpha < 1} and an incoming gradient g, ``dscores = 1_A (g - mean_A g) / temperature`` and
        ``dk = mean_A g``.

    Raises:
        TypeError: ``scores`` is not a tensor of one of the four floating types.
        ValueError: ``k`` is negative or not finite, ``temperature`` is not a finite number > 0, ``scores`` has no
            ``dim``, ``k`` or ``mask`` does not broadcast, ``mask`` is on another device or holds other values.

    Source: Wang and Lu, *Projection onto the capped simplex* (arXiv 1503.01002), for the problem; Martins and
    Astudillo, *From Softmax to Sparsemax* (ICML 2016), for k = 1. That it is `project_capped_simplex` of shifted scores
    is ours.

    Example:
        >>> soft_topk(torch.tensor([2.0, 1.5, 1.2, -1.0]), k=2)
        tensor([1.0000, 0.6500, 0.3500, 0.0000])
    """
    if not isinstance(k, Tensor) and not (isinstance(k, Real) and 0 <= k < math.inf):
        raise ValueError(f"k must be a finite number >= 0, or a tensor, got {k!r}")
    if isinstance(temperature, Tensor):
        raise ValueError("temperature must be a number, got a tensor: divide the scores by one that is learned")
    temperature = checks.positive_number("temperature", temperature)
    values, total, real = checked_rows(scores, k, mask, dim, ("scores", "k"))
    values = values.to(total.dtype)
    largest = torch.finfo(values.dtype).max
    values = values.clamp(max=largest)
    known = values.detach() if real is None else values.detach().masked_fill(~real, -math.inf)
    # With fewer than ceil(k) real tokens the last one is -inf: then every real token is far above it, and saturated.
    last = _last_of_top(known, total if isinstance(k, Tensor) else k).clamp(min=-largest)
    # The ceil(k) largest are 1 or more after the shift, so their clipped sum is >= k and "<= k" binds; differences are
    # taken first, so that large scores lose no precision, and a constant shift has no gradient.
    shifted = (values - last) / temperature + 1.0
    return moved_back(projected(Rows(shifted, total, real)).to(scores.dtype), dim)


def _last_of_top(values: Tensor, k: Tensor | float) -> Tensor:
    """Returns (..., 1), the ceil(k)-th largest value of every row, the first at least and the T-th at most."""
    length = values.shape[-1]
    if not isinstance(k, Tensor):
        return values.topk(min(max(math.ceil(k), 1), length)).values[..., -1:]
    if length == 0:
        return values
    rank = k.detach().nan_to_num(1.0).ceil().clamp(1, length).long().unsqueeze(-1)
    return values.sort(descending=True).values.gather(-1, rank - 1)


def keep_top(tokens: Tensor, alpha: Tensor, k: int) -> KeptTokens:
    """Keeps the k tokens of every sample that have the largest weights, in the order in which they came.

    It is for inference: what follows then works on k tokens instead of T. Of equal weights, any may be kept.
    The weights of `soft_topk` sum to its k, but more tokens than that may have some: ``(alpha > 0).sum(dim=1)`` tells.

    Args:
        tokens: (B, T, d).
        alpha: (B, T), such as the weights of `soft_topk`, in which padding has 0.
        k: how many tokens are kept; T where it is larger than T.

    Returns:
        KeptTokens: ``tokens`` (B, k, d), not weighted; ``mask`` (B, k), False for tokens with a weight of 0, which are
        kept only if fewer than k tokens have a positive weight; ``indices`` (B, k), ascending. The weights of the
        tokens are ``alpha.gather(1, indices)``.

    Raises:
        ValueError: ``tokens`` or ``alpha`` has another shape, ``k`` is not an integer >= 1.

    Example:
        >>> kept = keep_top(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[0.2, 0.0, 0.8]]), k=2)
        >>> kept.tokens.flatten(), kept.indices
        (tensor([1., 3.]), tensor([[0, 2]]))
    """
    k = checks.positive_integer("k", k)
    if checks.tensor("tokens", tokens).ndim != 3:
        raise ValueError(f"tokens must have shape (batch, tokens, width), got {tuple(tokens.shape)}")
    if checks.tensor("alpha", alpha).shape != tokens.shape[:2]:
        raise ValueError(f"alpha must have shape {tuple(tokens.shape[:2])}, got {tuple(alpha.shape)}")
    indices = alpha.topk(min(k, alpha.shape[1]), dim=1, sorted=False).indices.sort(dim=1).values
    kept = tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    return KeptTokens(kept, alpha.gather(1, indices) > 0, indices)
