"""On a GPU: the results of the CPU, no waiting for the host, a step that a CUDA graph records, and bfloat16."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from multifuse import (
    CLCRForConditionalGeneration,
    CLCRForSegmentPrediction,
    InterCAD,
    IntraCED,
    StiefelProjector,
    WhiteningXCorrLoss,
)
from tests.models import test_backbones, test_compile, test_generation
from tests.models.test_compile import FUSIONS, on

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

NAMES = tuple(test_compile.WIDTHS)
SHAPE = test_compile.SHAPES[0]
Case = Callable[[], tuple[nn.Module, dict[str, Any]]]


def _tokens() -> dict[str, Tensor]:
    return {name: torch.randn(4, 6 + index, 16) for index, name in enumerate(NAMES)}


def _mask() -> dict[str, Tensor]:
    tokens = _tokens().items()
    return {name: torch.arange(values.shape[1]) < torch.tensor([[3], [6], [1], [0]]) for name, values in tokens}


def _exchange() -> tuple[nn.Module, dict[str, Any]]:
    return IntraCED(16, NAMES, shared_rank=8, private_rank=4, num_heads=2), {"tokens": _tokens(), "mask": _mask()}


def _levels() -> list[Any]:
    with torch.no_grad():
        return [IntraCED(16, NAMES, shared_rank=8, private_rank=4, num_heads=2)(_tokens(), _mask()) for _ in range(2)]


def _predicting(name: str, *shape: int, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    return test_compile.model(name, **options), test_compile.batch(*(shape or SHAPE))


def _on_clips() -> tuple[nn.Module, dict[str, Any]]:
    inputs, mask = test_backbones.inputs()
    return test_backbones.model(dropout=0.0), {"inputs": inputs, "mask": mask, "labels": torch.arange(3)}


def _on_segments() -> tuple[nn.Module, dict[str, Any]]:
    config = test_backbones.config(num_segments=2, dropout=0.0)
    inputs, mask = test_backbones.inputs()
    labels = torch.randint(0, 5, (3, 2))
    return CLCRForSegmentPrediction(config), {"inputs": inputs, "mask": mask, "labels": labels}


def _writing() -> tuple[nn.Module, dict[str, Any]]:
    decoder = {**test_generation.T5, "dropout_rate": 0.0}
    model = CLCRForConditionalGeneration(test_generation.config(decoder, dropout=0.0))
    inputs = {name: torch.randn(3, 7, width) for name, width in test_generation.WIDTHS.items()}
    return model, {"inputs": inputs, "labels": torch.randint(3, 30, (3, 5))}


CASES: dict[str, Case] = {
    "IntraCED": _exchange,
    "InterCAD": lambda: (InterCAD(16, NAMES, num_levels=2), {"levels": _levels(), "mask": _mask()}),
    "InterCAD, segments": lambda: (InterCAD(16, NAMES, num_levels=2), {"levels": _levels(), "segments": 2}),
    "StiefelProjector": lambda: (StiefelProjector(16, NAMES, shared_rank=8, private_rank=4), {"tokens": _tokens()}),
    "WhiteningXCorrLoss": lambda: (WhiteningXCorrLoss(), {"x": torch.randn(20, 6), "y": torch.randn(20, 5)}),
    **{name: partial(_predicting, name) for name in FUSIONS},
    "clcr, geotorch": lambda: _predicting("clcr", parametrization="geotorch"),
    "clcr, equal lengths": lambda: _predicting("clcr", 4, 9, 9),
    "clcr, sinusoidal": lambda: _predicting("clcr", positions="sinusoidal"),
    "clcr on clips": _on_clips,
    "clcr on segments": _on_segments,
    "clcr, writing": _writing,
}


def _results(module: nn.Module, given: dict[str, Any]) -> list[Tensor]:
    """Returns all floating-point outputs of a module, then the gradients of its weights, on the CPU."""
    leaves = [leaf for leaf in tree_leaves(module(**given)) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    total = torch.stack([leaf.square().sum() for leaf in leaves if leaf.requires_grad] or [torch.zeros(())]).sum()
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    grads = torch.autograd.grad(total, weights, allow_unused=True) if weights else ()
    return [values.detach().cpu() for values in (*leaves, *grads) if values is not None]


def _double(given: Any) -> Any:
    def double(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tree_map(double, given)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    module, given = CASES[name]()
    module, given = module.double().train(), _double(given)
    on_gpu = copy.deepcopy(module).cuda()
    expected, ours = _results(module, given), _results(on_gpu, on("cuda", given))
    assert len(expected) == len(ours) > 0
    # some weights are computed in float32 on both devices
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", FUSIONS)
def test_a_training_step_does_not_wait_for_the_gpu(name: str) -> None:
    network = test_compile.model(name, modality_dropout=0.2, dropout=0.1).cuda()
    given = on("cuda", test_compile.batch(*SHAPE))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        network(**given).loss.backward()
        optimiser.step()

    step()  # libraries are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


CAPTURED: dict[str, tuple[str, tuple[int, ...], bool]] = {
    **{name: (name, SHAPE, False) for name in FUSIONS},
    "clcr, equal lengths": ("clcr", (4, 9, 9), False),
    "clcr, checkpointed": ("clcr", SHAPE, True),
}


@pytest.mark.parametrize("case", CAPTURED)
def test_a_cuda_graph_replays_a_step_with_the_loss_and_gradients_of_eager_mode(case: str) -> None:
    name, shape, checkpointed = CAPTURED[case]
    network = test_compile.model(name).cuda()
    if checkpointed:
        network.gradient_checkpointing_enable()
    weights = list(network.parameters())
    static, other = (on("cuda", test_compile.batch(*shape)) for _ in range(2))

    def step() -> list[Tensor]:
        loss = network(**static).loss
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        return [loss.detach(), *(grad for grad in grads if grad is not None)]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # of everything, because gradients belong to a stream
        for _ in range(3):
            step()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            recorded = step()
        for old, new in zip(tree_leaves(static), tree_leaves(other), strict=True):
            old.copy_(new)
        graph.replay()
        replayed = [values.clone() for values in recorded]
        expected = step()
        torch.cuda.synchronize()
    torch.testing.assert_close(replayed, expected, atol=1e-6, rtol=1e-5)


def test_bfloat16_autocast_gives_a_loss_near_that_of_float32_and_finite_gradients() -> None:
    network = test_compile.model().cuda()
    given = on("cuda", test_compile.batch(*SHAPE))
    expected = network(**given).loss
    with torch.autocast("cuda", torch.bfloat16):
        loss = network(**given).loss
    loss.backward()
    torch.testing.assert_close(loss.float(), expected, atol=0.05, rtol=0.05)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_a_model_generates_on_a_gpu_what_it_generates_on_the_cpu() -> None:
    model, given = _writing()
    model.eval()
    arguments: dict[str, Any] = {"inputs": given["inputs"], "max_new_tokens": 6, "num_beams": 2}
    expected = model.double().generate(**_double(arguments))  # type: ignore[operator]
    torch.testing.assert_close(model.cuda().generate(**on("cuda", _double(arguments))).cpu(), expected)  # type: ignore[operator]
