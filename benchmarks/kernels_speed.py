"""What the CPU kernels other than the projection gain: as an op, and in a whole training step, which decides."""

from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.step_speed import training_step
from benchmarks.timing import Comparison, in_turns
from multifuse.ops import attention

BATCH, LENGTH, RANK, HEADS, MODALITIES = 64, 50, 48, 4, 3
PAYS = 1.1
"""A kernel stays if a training step takes at least this many times as long without it."""


def compare(seconds: float) -> Iterator[Comparison]:
    """Compares the attention of the exchange with torch's: as an op, then in a training step."""
    torch.manual_seed(0)
    joined = torch.randn(BATCH, MODALITIES * LENGTH, 3 * RANK, requires_grad=True)
    lengths = [LENGTH] * MODALITIES
    grad = torch.randn(BATCH, MODALITIES * LENGTH, RANK)

    def backward(attended: Tensor) -> object:
        return torch.autograd.grad(attended, joined, grad)

    op = in_turns(
        {
            "ours": lambda: backward(attention.attend_others(joined, lengths, HEADS)),
            "theirs": lambda: backward(attention.by_torch(joined, lengths, HEADS, None, None)),
        },
        seconds / 2,
    )
    what = "attention of three modalities to the others, forward + backward"
    yield Comparison(what, "torch's, a modality at a time", op["ours"], op["theirs"])
    step = training_step()
    steps = in_turns({"ours": step, "theirs": without_attention_kernel(step)}, 4 * seconds)
    yield Comparison("CLCR's training step", "without the attention kernel", steps["ours"], steps["theirs"], 1 / PAYS)


def without_attention_kernel(function: Callable[[], object]) -> Callable[[], object]:
    """Returns the function with the attention computed by torch."""

    def call() -> object:
        with patch.object(attention, "runs_compiled", lambda _: False):
            return function()

    return call
