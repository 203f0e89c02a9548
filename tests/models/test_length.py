"""Long sequences: a training step makes no tensor of T x T numbers, on the compiled and on the plain path."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.ops import transforms
from tests.sizes import SMALL_SIZES

NAMES = ("text", "audio")


class _Largest(TorchDispatchMode):
    """Records the largest storage that an operator reads or writes, in numbers of its tensor's type."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0
        self.operator = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.untyped_storage().nbytes() // value.itemsize > self.numbers:
                self.numbers, self.operator = value.untyped_storage().nbytes() // value.itemsize, str(func)
        return result


def largest(tokens: int, with_mask: bool) -> _Largest:
    """Returns the largest tensor of a training step for one sample with ``tokens`` tokens of each modality."""
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": 4} for name in NAMES}
    config = CLCRConfig(modalities=modalities, positions="sinusoidal", **SMALL_SIZES)
    network: CLCRForPrediction = CLCRForPrediction(config).train()
    inputs = {name: torch.randn(1, tokens, 4) for name in NAMES}
    mask = {name: torch.arange(tokens).expand(1, -1) < tokens - 5 for name in NAMES} if with_mask else None
    with _Largest() as found:
        output = network(inputs, mask, labels=torch.ones(1))
        output.loss.backward()
    assert all((alpha > 0).any() and alpha.sum() < 0.7 * tokens for alpha in output.activations[0].values())
    measured: _Largest = found
    return measured


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("with_mask", [True, False])
def test_a_training_step_makes_no_tensor_that_grows_with_the_square_of_the_length(
    compiled: bool, with_mask: bool
) -> None:
    with patch.object(transforms, "_IS_COMPILED", compiled and transforms._IS_COMPILED):
        short, long = largest(256, with_mask), largest(2048, with_mask)
    assert long.numbers < 2048 * 2048 / 8, f"{long.operator} makes {long.numbers} numbers"
    assert long.numbers <= 8 * short.numbers, f"{long.operator} grows faster than the number of tokens"


def test_attention_by_torchs_math_would_be_noticed() -> None:
    with patch.object(transforms, "_IS_COMPILED", False), sdpa_kernel(SDPBackend.MATH):
        assert largest(512, True).numbers >= 512 * 512
