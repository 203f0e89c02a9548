"""The losses under torch.compile: one graph for batches of every shape, with the loss and gradients of eager mode."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from multifuse import InterLevelLoss, IntraLevelLoss, WhiteningXCorrLoss
from multifuse.layers import InterCADOutput, IntraCEDOutput

Loss = Callable[[list[Tensor], dict[str, Tensor]], Tensor]
NAMES, LEVELS, SHARED, PRIVATE = ("text", "audio"), 2, 4, 3
WHITENING, INTRA, INTER = WhiteningXCorrLoss(), IntraLevelLoss(debias=False), InterLevelLoss()
SHAPES = [(24, (7, 9)), (30, (8, 11)), (36, (10, 6))]


def codes_and_masks(batch: int, lengths: tuple[int, ...], seed: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Returns codes that hold NaN at padding, shared and private by level and modality, and descriptors and weights."""
    torch.manual_seed(seed)
    mask = {name: torch.rand(batch, length) < 0.8 for name, length in zip(NAMES, lengths)}
    codes = [
        torch.randn(batch, mask[name].shape[1], rank).masked_fill(~mask[name].unsqueeze(-1), float("nan"))
        for _ in range(LEVELS)
        for rank in (SHARED, PRIVATE)
        for name in NAMES
    ]
    aggregate = [torch.randn(batch, LEVELS, 5), torch.rand(batch, LEVELS)]
    return [values.requires_grad_() for values in (*codes, *aggregate)], mask


def levels_of(values: list[Tensor]) -> list[IntraCEDOutput]:
    given = iter(values)
    by_level = [[dict(zip(NAMES, (next(given), next(given)))) for _ in range(2)] for _ in range(LEVELS)]
    return [IntraCEDOutput({}, {}, {}, shared, private, {}) for shared, private in by_level]


def whitening(values: list[Tensor], mask: dict[str, Tensor]) -> Tensor:
    loss: Tensor = WHITENING(values[0], values[2], mask["text"])
    return loss


def regularisers(values: list[Tensor], mask: dict[str, Tensor]) -> Tensor:
    descriptors, weights = values[-2:]
    present = torch.stack([real.any(1) for real in mask.values()], -1).float()
    aggregate = InterCADOutput(weights, weights, weights, weights, present, present, descriptors)
    levels = levels_of(values)
    total: Tensor = INTRA(levels, mask).total + INTER(levels, aggregate, mask).total
    return total


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize(("loss", "backend"), [(whitening, "inductor"), (regularisers, "eager")])
def test_one_graph_serves_every_batch_with_the_loss_and_gradients_of_eager_mode(loss: Loss, backend: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    graphs = []
    for seed, (batch, lengths) in enumerate(SHAPES):
        values, mask = codes_and_masks(batch, lengths, seed)
        for given in values:
            torch._dynamo.mark_static(given, -1)  # the ranks, which are those of weights in a model
        results = [function(values, mask) for function in (compiled, loss)]
        grads = [torch.autograd.grad(result, values, allow_unused=True) for result in results]
        torch.testing.assert_close(*results)
        for ours, expected in zip(*grads):
            torch.testing.assert_close(ours, expected)
        graphs.append(counter.frame_count)
    assert graphs[1] == graphs[2], "a batch of a third shape was compiled again"
