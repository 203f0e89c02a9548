"""A convolution of every channel along time and its GELU, as a function.

On a CPU it is one compiled op, which keeps nothing but its input; elsewhere torch's convolution runs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, pad

from multifuse.ops import native
from multifuse.ops.batching import one_by_one
from multifuse.ops.library import LIBRARY
from multifuse.ops.portable import compute_dtype

_IS_COMPILED = native.load("cpu")


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
    if tokens.device.type == "cpu" and _IS_COMPILED:
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
def _convolve_vjp_fake(grad: Tensor, tokens: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    batch, _, channels = tokens.shape
    parameters = tokens.new_empty(batch, 4, channels, dtype=compute_dtype(tokens.dtype))
    return tokens.new_empty(tokens.shape), parameters


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, weight, bias, ctx.dilation, mask = inputs
    ctx.save_for_backward(tokens, weight, bias, mask)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tokens, weight, bias, mask = ctx.saved_tensors
    pulled, by_sample = _convolve_vjp(grad, tokens, weight, bias, ctx.dilation, mask)
    *taps, of_bias = by_sample.sum(0).to(tokens.dtype).unbind()
    return pulled, torch.stack(taps, dim=-1), of_bias, None, None


def _save_vjp(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, tokens, weight, bias, ctx.dilation, mask = inputs
    ctx.save_for_backward(grad, tokens, weight, bias, mask)


def _vjp_backward(ctx: Any, *pushed: Tensor) -> tuple[Any, ...]:
    """The second derivative, by torch's convolution: seldom asked for, so not worth a kernel."""
    *saved, mask = ctx.saved_tensors
    with torch.enable_grad():
        grad, *inputs = (tensor.detach().requires_grad_() for tensor in saved)
        tokens, weight, bias = inputs
        # Parameters of every sample's own, whose gradients the vjp gives sample by sample.
        weights, biases = (own.expand(len(tokens), *own.shape) for own in (weight, bias))
        convolved = torch.cat(
            [
                by_torch(own, w, b, ctx.dilation, None if mask is None else mask[index : index + 1])
                for index, (own, w, b) in enumerate(zip(tokens.split(1), weights.unbind(), biases.unbind()))
            ]
        )
        pulled, of_weights, of_biases = torch.autograd.grad(
            convolved, (tokens, weights, biases), grad, create_graph=True
        )
        by_sample = torch.cat([of_weights.mT, of_biases.unsqueeze(1)], dim=1)
        grads = torch.autograd.grad((pulled, by_sample), (grad, *inputs), pushed)
    return (*grads, None, None)


torch.library.register_autograd("multifuse::convolve_gelu", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("multifuse::convolve_gelu_vjp", _vjp_backward, setup_context=_save_vjp, lib=LIBRARY)


torch.library.register_vmap("multifuse::convolve_gelu", one_by_one(_convolve, 1), lib=LIBRARY)
torch.library.register_vmap("multifuse::convolve_gelu_vjp", one_by_one(_convolve_vjp, 2), lib=LIBRARY)
