"""A convolution of every channel along time and its GELU, as a function.

On a CPU it is one compiled op, which keeps nothing but its input; elsewhere torch's convolution runs.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, pad

from multifuse.ops.library import LIBRARY
from multifuse.ops.transforms import runs_compiled, second_derivative


def convolve_gelu(tokens: Tensor, weight: Tensor, bias: Tensor, dilation: int, mask: Tensor | None = None) -> Tensor:
    r"""Computes ``GELU(b + w_0 x_{t-s} + w_1 x_t + w_2 x_{t+s})``, channel by channel, x 0 at padding and beyond ends.

    Args:
        tokens: x (B, T, C), float16, bfloat16 (both computed in float32 by the compiled op), float32 or float64.
        weight: w (C, 3), in the tokens' type or brought to it.
        bias: b (C,), likewise.
        dilation: s >= 1.
        mask: (B, T) bool, True = real token; ``None``: all are real.

    Returns:
        (B, T, C), also at padding. Differentiable twice.

    Source: CLCR (arXiv 2602.19605), the temporal convolutions of the semantic-hierarchy encoder; GELU is ours.
    """
    weight, bias = weight.to(tokens.dtype), bias.to(tokens.dtype)
    if runs_compiled(tokens):
        convolved: Tensor = _convolve(tokens, weight, bias, dilation, mask)
        return convolved
    return by_torch(tokens, weight, bias, dilation, mask)


def by_torch(tokens: Tensor, weight: Tensor, bias: Tensor, dilation: int, mask: Tensor | None) -> Tensor:
    """`convolve_gelu` by torch's convolution, of an image with its channels last, read and written as it lies.

    Its rows are a dilation apart, its columns are neighbours: torch's convolution is slow only with a dilation.
    """
    if mask is not None:
        tokens = tokens.masked_fill(~mask.unsqueeze(-1), 0.0)
    length = tokens.shape[1]
    if length <= dilation:  # the outer taps meet no token
        return gelu(torch.addcmul(bias, tokens, weight[:, 1]))
    missing = -length % dilation
    padded = pad(tokens, (0, 0, 0, missing)) if missing else tokens
    image = padded.unflatten(1, (-1, dilation)).permute(0, 3, 1, 2)
    image = conv2d(image, weight[:, None, :, None], bias, padding=(1, 0), groups=weight.shape[0])
    return gelu(image.permute(0, 2, 3, 1).flatten(1, 2)[:, :length])


_convolve = torch.ops.multifuse.convolve_gelu.default
_convolve_vjp = torch.ops.multifuse.convolve_gelu_vjp.default


@torch.library.register_fake("multifuse::convolve_gelu", lib=LIBRARY)
def _convolve_fake(tokens: Tensor, weight: Tensor, bias: Tensor, dilation: int, mask: Tensor | None) -> Tensor:
    channels = tokens.shape[-1]
    torch._check(weight.shape == (channels, 3), lambda: f"weight must be ({channels}, 3), got {tuple(weight.shape)}")
    torch._check(bias.shape == (channels,), lambda: f"bias must be ({channels},), got {tuple(bias.shape)}")
    return tokens.new_empty(tokens.shape)


@torch.library.register_fake("multifuse::convolve_gelu_vjp", lib=LIBRARY)
def _convolve_vjp_fake(
    grad: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return tokens.new_empty(tokens.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, weight, bias, ctx.dilation, mask = inputs
    ctx.save_for_backward(tokens, weight, bias, mask)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tokens, weight, bias, mask = ctx.saved_tensors
    return (*_convolve_vjp(grad, tokens, weight, bias, ctx.dilation, mask), None, None)


def _save_vjp(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad, tokens, weight, bias, ctx.dilation, mask = inputs
    ctx.save_for_backward(grad, tokens, weight, bias, mask)


def _vjp_backward(ctx: Any, *pushed: Tensor) -> tuple[Any, ...]:
    grad, tokens, weight, bias, mask = ctx.saved_tensors

    function = partial(by_torch, dilation=ctx.dilation, mask=mask)
    return (*second_derivative(function, grad, [tokens, weight, bias], pushed), None, None)


torch.library.register_autograd("multifuse::convolve_gelu", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("multifuse::convolve_gelu_vjp", _vjp_backward, setup_context=_save_vjp, lib=LIBRARY)
