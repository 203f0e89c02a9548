"""bfloat16: steps under autocast, and of weights in bfloat16, stay near those of float32, compiled ones too."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from multifuse import StiefelProjector
from tests.models.test_compile import SHAPES, batch, model


def autocast(mode: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else nullcontext()


def network_in(mode: str) -> Any:
    return model().to(torch.bfloat16) if mode == "weights" else model()


def batch_in(mode: str, *shape: int) -> dict[str, Any]:
    """Returns a batch with masks; the labels stay in float32, as the loss is."""
    given = batch(*shape)
    if mode == "weights":
        given["inputs"] = {name: values.bfloat16() for name, values in given["inputs"].items()}
    return given


def differentiated(network: Any, given: dict[str, Any], mode: str) -> tuple[Any, Tensor]:
    """Returns the output of a step, and all gradients in one vector."""
    network.zero_grad()
    with autocast(mode):
        output = network(**given)
    output.loss.backward()
    return output, torch.cat([weight.grad.flatten().float() for weight in network.parameters()])


@pytest.mark.parametrize("mode", ["autocast", "weights"])
def test_loss_terms_and_gradients_are_near_those_of_float32(mode: str) -> None:
    torch.manual_seed(1)
    expected, expected_gradient = differentiated(model(), batch(16, 30, 20), "float32")
    torch.manual_seed(1)
    output, gradient = differentiated(network_in(mode), batch_in(mode, 16, 30, 20), mode)
    assert output.logits.dtype == torch.bfloat16
    for name, term in output.terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, expected.terms[name], atol=0.01, rtol=0.01)
    assert gradient.isfinite().all()
    assert cosine_similarity(gradient, expected_gradient, dim=0) > 0.999
    torch.testing.assert_close(gradient.norm(), expected_gradient.norm(), atol=0, rtol=0.03)


@pytest.mark.parametrize("mode", ["autocast", "weights"])
def test_the_bases_stay_orthonormal_to_float32_while_they_are_trained(mode: str) -> None:
    network = network_in(mode)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.05)
    projectors = [module for module in network.modules() if isinstance(module, StiefelProjector)]
    before = [projector.bases() for projector in projectors]
    for _ in range(3):
        differentiated(network, batch_in(mode, *SHAPES[0]), mode)
        optimiser.step()
    for projector, old in zip(projectors, before, strict=True):
        with autocast(mode):
            shared, private = projector.bases()
        assert not torch.allclose(shared, old.shared, atol=0.01)
        columns = torch.cat([shared.expand(len(private), -1, -1), private], dim=-1)
        assert columns.dtype == torch.float32
        identity = torch.eye(columns.shape[-1]).expand(len(private), -1, -1)
        torch.testing.assert_close(columns.mT @ columns, identity, atol=1e-5, rtol=0)


@torch._dynamo.config.patch(specialize_float=True)  # otherwise every compilation begins twice
@pytest.mark.parametrize(("mode", "backend"), [("autocast", "aot_eager"), ("weights", "eager")])
def test_a_compiled_step_is_one_graph_near_the_eager_one(mode: str, backend: str) -> None:
    network = network_in(mode)
    compiled = torch.compile(network, backend=backend, fullgraph=True, dynamic=True)
    for shape in SHAPES:
        given = batch_in(mode, *shape)
        expected, expected_gradient = differentiated(network, given, mode)
        output, gradient = differentiated(compiled, given, mode)
        torch.testing.assert_close(output.loss, expected.loss, atol=0.01, rtol=0.01)
        assert cosine_similarity(gradient, expected_gradient, dim=0) > 0.995


def test_padding_reaches_nothing_in_bfloat16() -> None:
    network, given = network_in("weights").eval(), batch_in("weights", 6, 9, 7)
    expected = network(given["inputs"], given["mask"]).logits
    for name, values in given["inputs"].items():
        given["inputs"][name] = values.masked_fill(~given["mask"][name].unsqueeze(-1), float("nan"))
    assert torch.equal(network(given["inputs"], given["mask"]).logits, expected)
