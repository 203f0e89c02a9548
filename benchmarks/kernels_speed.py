"""The compiled ops of CLCR's step against the same in torch's own operators, forward and backward, at MOSI's sizes."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import Comparison, in_turns
from multifuse.ops import attention, budget, convolution

BATCH, LENGTH, DIM, RANK, HEADS, MODALITIES = 64, 50, 128, 48, 4, 3


def compare(seconds: float) -> Iterator[Comparison]:
    """The exchange's attention, the token budget, and the first and last level's convolutions."""
    torch.manual_seed(0)
    joined = torch.randn(BATCH, MODALITIES * LENGTH, 3 * RANK, requires_grad=True)
    lengths = [LENGTH] * MODALITIES
    yield _compared(
        "attention of three modalities to the others",
        "torch's, a modality at a time",
        lambda: attention.attend_others(joined, lengths, HEADS),
        lambda: attention.by_torch(joined, lengths, HEADS, None, None),
        [joined],
        seconds,
    )
    codes = torch.randn(BATCH, LENGTH, RANK, requires_grad=True)
    parameters = torch.tensor([4.0, -1.0, 0.68], requires_grad=True)
    yield _compared(
        "token budget, from codes to alpha",
        "its separate steps",
        lambda: budget.allot(codes, *parameters.unbind()),
        lambda: budget.in_steps(codes, parameters, None),
        [codes, parameters],
        seconds,
    )
    tokens = torch.randn(BATCH, LENGTH, DIM, requires_grad=True)
    taps, bias = torch.randn(DIM, 3, requires_grad=True), torch.randn(DIM, requires_grad=True)
    for dilation in (1, 32):
        yield _compared(
            f"convolution of dilation {dilation} and GELU",
            "torch's",
            partial(convolution.convolve_gelu, tokens, taps, bias, dilation),
            partial(convolution.by_torch, tokens, taps, bias, dilation, None),
            [tokens, taps, bias],
            seconds,
        )


def _compared(
    what: str, peer: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], inputs: list[Tensor], seconds: float
) -> Comparison:
    grad = torch.randn(ours().shape)
    times = in_turns(
        {
            "ours": lambda: torch.autograd.grad(ours(), inputs, grad),
            "theirs": lambda: torch.autograd.grad(theirs(), inputs, grad),
        },
        seconds / 2,
    )
    return Comparison(f"{what}, forward + backward", peer, times["ours"], times["theirs"])
