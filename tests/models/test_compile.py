"""CLCR in one graph: under torch.compile in training, and without anything that makes a device wait for the host."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from multifuse import CLCRConfig
from multifuse._internal import devices
from multifuse.ops import transforms
from multifuse.recipes.jobs.models import MODELS, model_class
from tests.layers.test_exchange_levels import hooked, replaced
from tests.sizes import SMALL_SIZES

WIDTHS = {"text": 5, "audio": 3}
FUSIONS = [name for name in MODELS if name != "text"]
SHAPES = ((4, 9, 7), (6, 11, 8), (5, 7, 12))
"""The samples of a batch, and its tokens of text and of audio."""


def model(name: str = "clcr", **options: Any) -> Any:
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    return model_class(name)(CLCRConfig(modalities=modalities, **{**SMALL_SIZES, "dropout": 0.0, **options})).train()


def batch(size: int, *lengths: int) -> dict[str, Any]:
    tokens = dict(zip(WIDTHS, lengths, strict=True))
    inputs = {name: torch.randn(size, length, WIDTHS[name]) for name, length in tokens.items()}
    mask = {name: torch.arange(length) < torch.randint(2, length + 1, (size, 1)) for name, length in tokens.items()}
    return {"inputs": inputs, "mask": mask, "labels": torch.randn(size)}


def on(device: torch.device | str, given: Any) -> Any:
    """Returns a batch on another device."""

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    return tree_map(moved, given)


@contextmanager
def settings(backend: str) -> Iterator[None]:
    """Sets what makes inductor faster: otherwise its compilations begin twice, and vector code takes g++ longer."""
    if backend != "inductor":
        yield
        return
    with torch._dynamo.config.patch(specialize_float=True), torch._inductor.config.patch("cpp.simdlen", 1):
        yield


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_training_step_is_one_graph_for_every_shape_with_the_loss_and_gradients_of_eager_mode(
    backend: str, device: torch.device
) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    graphs: list[int] = []
    compiler = lookup_backend(backend)

    def counted(graph: Any, examples: Any) -> Any:
        graphs.append(1)
        return compiler(graph, examples)

    network = model()
    network.to(device)
    weights = dict(network.named_parameters())
    compiled: Any = torch.compile(network, backend=counted, fullgraph=True, dynamic=True)
    for shape in SHAPES:
        given = on(device, batch(*shape))
        expected = network(**given).loss
        with settings(backend):
            loss = compiled(**given).loss
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        grads, expected_grads = (torch.autograd.grad(value, list(weights.values())) for value in (loss, expected))
        for name, ours, theirs in zip(weights, grads, expected_grads, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3), name
    assert len(graphs) == 1, "another shape was compiled again"


@torch.no_grad()  # torch.compile warns of intermediate values that require a gradient
def test_exchanges_that_were_compiled_replaced_or_hooked_are_called() -> None:
    network, given = model().eval(), batch(*SHAPES[0])
    plain = network(**given).logits
    network.clcr.exchanges[1] = torch.compile(network.clcr.exchanges[1], backend="eager")  # type: ignore[assignment]
    torch.testing.assert_close(network(**given).logits, plain)
    replaced(network.clcr.exchanges[0])  # type: ignore[arg-type]
    torch.testing.assert_close(network(**given).logits, plain)
    hooked(network.clcr.exchanges[0])  # type: ignore[arg-type]
    assert not torch.allclose(network(**given).logits, plain)


class _DeviceOnly(TorchDispatchMode):
    """Refuses operators that read or write the host's memory, and those whose output depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)]
        assert all(value.is_meta for value in tensors if value.ndim), f"{func} uses a tensor of the host"
        waits = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        by_numbers = func is torch.ops.aten.index.Tensor and all(
            at is None or at.dtype == torch.int64 for at in args[1]
        )
        assert not waits or by_numbers, f"{func} waits for values"
        return result


@pytest.mark.parametrize("name", FUSIONS)
def test_a_training_step_neither_copies_from_the_host_nor_waits_for_values(name: str) -> None:
    """On the meta device, whose tensors have no values, everything runs that a GPU could record in a CUDA graph."""
    network = model(name, modality_dropout=0.2, dropout=0.1).to("meta")
    given = on("meta", batch(*SHAPES[0]))
    with _DeviceOnly():  # type: ignore[no-untyped-call]
        network(**given).loss.backward()
    trained = [weight.grad is not None for weight in network.parameters()]
    assert all(trained) if name == "clcr" else any(trained)  # the other models read the last level only


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_training_step_asks_for_no_value_on_the_host(
    name: str, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some gradients, such as that of `torch.prod`, ask for values, though not on the meta device."""
    monkeypatch.setattr(devices, "is_gpu", lambda device: on_gpu)
    monkeypatch.setattr(transforms, "_IS_COMPILED", False)  # otherwise a CPU's operators run
    network, given = model(name, modality_dropout=0.2, dropout=0.1), batch(4, 9, 9)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profiled:
        network(**given).loss.backward()
    called = {event.key for event in profiled.key_averages()}
    assert "aten::mm" in called
    assert not called & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}
