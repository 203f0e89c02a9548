"""The token budget, from codes to alpha, as a function: on a CPU one compiled op, elsewhere its steps in torch."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from multifuse._internal.masks import token_count
from multifuse.ops.library import LIBRARY
from multifuse.ops.portable import compute_dtype
from multifuse.ops.projection import project_capped_simplex
from multifuse.ops.transforms import runs_compiled, second_derivative


def allot(codes: Tensor, sharpness: Tensor, threshold: Tensor, share: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Solves, for every sample with n real tokens and codes c,

    .. math:: \min_\alpha \|\alpha - \mathrm{sigmoid}(s (x - \tau))\|_2^2
        \quad\text{subject to}\quad 0 \le \alpha_t \le 1,\ \sum_t \alpha_t \le \rho n ,

    where x is the evidence ``||c_t||_2``, standardised over the sample's real tokens.

    Args:
        codes: c (B, T, r), float16, bfloat16 (both computed in float32), float32 or float64.
        sharpness, threshold, share: s, tau and rho, scalars of the compute type.
        mask: (B, T) bool, True = real token; ``None``: all are real.

    Returns:
        alpha (B, T) of the compute type, 0 at padding. Differentiable twice.

    Source: CLCR (arXiv 2602.19605), the token budget of IntraCED.
    """
    parameters = torch.stack([sharpness, threshold, share])
    if not runs_compiled(codes):
        return in_steps(codes, parameters, mask)
    alpha: Tensor = _allot(codes, parameters, mask)[0]
    return alpha


def in_steps(codes: Tensor, parameters: Tensor, mask: Tensor | None) -> Tensor:
    """`allot` in separate steps; ``parameters`` are sharpness, threshold and share (3,)."""
    codes = codes.to(parameters.dtype)
    codes = codes if mask is None else codes.masked_fill(~mask.unsqueeze(-1), 0.0)
    return activated(torch.linalg.vector_norm(codes, dim=-1), parameters, mask)


def activated(evidence: Tensor, parameters: Tensor, mask: Tensor | None) -> Tensor:
    """alpha (B, T) of evidence (B, T), see `allot`."""
    sharpness, threshold, share = parameters.unbind()
    count = token_count(evidence, mask)
    score = sharpness * (standardised(evidence, mask, count) - threshold)
    return project_capped_simplex(torch.sigmoid(score), share * count, mask)


def standardised(evidence: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    """Shifts and scales (B, T) to mean 0, deviation 1 over the real tokens; equal tokens, or a single one, give 0."""
    if mask is not None:
        evidence = evidence.masked_fill(~mask, 0.0)
    count = count.clamp(min=1.0).unsqueeze(-1)
    mean = evidence.sum(-1, keepdim=True) / count
    centred = evidence - mean
    if mask is not None:
        centred = centred.masked_fill(~mask, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / count
    # The floor, far below any real spread, keeps the rounding of equal tokens from being blown up to deviation 1.
    floor = (1e-4 * mean).square() + torch.finfo(evidence.dtype).tiny
    return centred / (variance + floor).sqrt()


_allot = torch.ops.multifuse.allot.default
_allot_vjp = torch.ops.multifuse.allot_vjp.default


@torch.library.register_fake("multifuse::allot", lib=LIBRARY)
def _allot_fake(codes: Tensor, parameters: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    expected = compute_dtype(codes.dtype)
    torch._check(parameters.dtype == expected, lambda: f"parameters must be {expected}, got {parameters.dtype}")
    batch, length, _ = codes.shape
    return parameters.new_empty(batch, length), parameters.new_empty(batch, 4)


@torch.library.register_fake("multifuse::allot_vjp", lib=LIBRARY)
def _allot_vjp_fake(grad: Tensor, codes: Tensor, parameters: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return codes.new_empty(codes.shape), parameters.new_empty(3)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    codes, parameters, mask = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(codes, parameters, output[1], mask)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    codes, parameters, kept, mask = ctx.saved_tensors
    return (*_allot_vjp(grad, codes, parameters, kept, mask), None)


def _save_vjp(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, codes, parameters, _, mask = inputs
    ctx.save_for_backward(grad, codes, parameters, mask)


def _vjp_backward(ctx: Any, *pushed: Tensor) -> tuple[Any, ...]:
    grad, codes, parameters, mask = ctx.saved_tensors

    return (*second_derivative(partial(in_steps, mask=mask), grad, [codes, parameters], pushed), None, None)


torch.library.register_autograd("multifuse::allot", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("multifuse::allot_vjp", _vjp_backward, setup_context=_save_vjp, lib=LIBRARY)
