"""The levels of several modalities together: the same as one by one, and left aside where a module was changed."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from multifuse import SemanticHierarchyEncoder, TemporalConvLevels
from multifuse._internal import devices
from multifuse.layers import hierarchy
from multifuse.layers import levels_together as levels_of_modalities
from multifuse.layers.levels_together import levels_together

WIDTHS = {"text": 5, "vision": 3, "audio": 1}


@pytest.fixture(autouse=True)
def _on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tensors of the CPU be computed as those of a GPU are."""
    monkeypatch.setattr(devices, "is_gpu", lambda device: True)


def encoder(num_levels: int = 2, **options: Any) -> SemanticHierarchyEncoder:
    torch.manual_seed(0)
    encoders = {name: TemporalConvLevels(width, 8, num_levels, dropout=0.5) for name, width in WIDTHS.items()}
    layer = SemanticHierarchyEncoder(6, encoders, num_levels, **options).double().eval()
    for weight in layer.parameters():
        if weight.ndim == 1:  # biases, and the scales of LayerNorms
            nn.init.normal_(weight)
    return layer


def batch(length: int, *masked: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(1)
    inputs = {name: torch.randn(3, length, width, dtype=torch.float64) for name, width in WIDTHS.items()}
    return inputs, {name: torch.rand(3, length) < 0.6 for name in masked}


def results(layer: nn.Module, inputs: dict[str, Tensor], mask: dict[str, Tensor], together: bool) -> list[Tensor]:
    """Returns all levels, then the gradients of the weights; counts on computing together, or prevents it."""
    with patch.object(hierarchy, "levels_together", wraps=levels_together) as used:
        if together:
            levels = layer(inputs, mask)
        else:
            with patch.object(hierarchy, "group_key", lambda *_: None):
                levels = layer(inputs, mask)
    assert used.called == together
    flat = [values for level in levels for values in level.values()]
    assert all(list(level) == list(inputs) for level in levels)
    weighted = [(values * torch.arange(1.0, 7)).sin().sum() for values in flat]
    return [*flat, *torch.autograd.grad(torch.stack(weighted).sum(), list(layer.parameters()))]


@given(
    st.integers(1, 40),
    st.sampled_from([(), ("vision",), ("text", "vision", "audio")]),
    st.sampled_from(["learned", "sinusoidal"]),
    st.integers(1, 3),
)
def test_levels_and_gradients_are_those_of_modalities_one_by_one(
    length: int, masked: tuple[str, ...], positions: str, num_levels: int
) -> None:
    layer, given_batch = encoder(num_levels, positions=positions), batch(length, *masked)
    ours, expected = (results(layer, *given_batch, together) for together in (True, False))
    torch.testing.assert_close(ours, expected)


def test_weights_tied_within_a_stage_or_between_modalities_get_the_sum_of_their_gradients() -> None:
    layer = encoder()
    stages: list[Any] = [layer.encoder(name).stages for name in WIDTHS]  # type: ignore[union-attr]
    stages[0][1].convolutions[1].weight = stages[0][1].convolutions[0].weight
    stages[1][0].mixer.weight = stages[0][0].mixer.weight
    given_batch = batch(7, "audio")
    torch.testing.assert_close(results(layer, *given_batch, True), results(layer, *given_batch, False))


def test_a_frozen_modality_has_no_gradient() -> None:
    layer, (inputs, _) = encoder(), batch(5)
    layer.encoder("text").requires_grad_(False)
    layer._maps("text").requires_grad_(False)
    assert computed_together(layer, inputs)[0] == [WIDTHS["vision"], WIDTHS["audio"]]
    assert not layer(inputs)[0]["text"].requires_grad


def test_dropout_drops_channels_of_each_modality_and_sample() -> None:
    layer = encoder(1).train()
    encoders: list[Any] = [layer.encoder(name) for name in WIDTHS]
    for one in encoders:  # without tokens of their own, the mixers give 3 at every token
        nn.init.zeros_(one.stages[0].mixer.weight)
        nn.init.constant_(one.stages[0].mixer.bias, 3.0)
    inputs = {name: torch.zeros(200, 4, width, dtype=torch.float64) for name, width in WIDTHS.items()}
    with patch.object(levels_of_modalities, "_mapped", wraps=levels_of_modalities._mapped) as mapped:
        layer(inputs)
    added = (mapped.call_args.args[1][0] - torch.stack([one.projection.bias for one in encoders])).detach()
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    kept = added[:, 0] > 1
    torch.testing.assert_close(added[:, 0], 6.0 * kept.double())
    assert (kept.double().mean(0) - 0.5).abs().max() < 0.15
    assert not torch.equal(kept[:, 0], kept[:, 1])


def text(layer: SemanticHierarchyEncoder) -> Any:
    return layer.encoder("text")


def checkpointed(encoder: Any) -> None:
    encoder.train().dropout.eval()
    encoder.gradient_checkpointing = True


def without_parameters(module: nn.Module) -> None:
    """Keeps weights as plain tensors, as some kinds of sharding do."""
    for name, weight in list(module.named_parameters()):
        delattr(module, name)
        setattr(module, name, weight.detach())


CHANGES: dict[str, Callable[[SemanticHierarchyEncoder], object]] = {
    "a hook": lambda layer: text(layer).register_forward_hook(lambda *_: None),
    "a hook of a stage's map": lambda layer: text(layer).stages[0].mixer.register_forward_hook(lambda *_: None),
    "a level with a parametrization": lambda layer: weight_norm(layer._maps("text")[0].projection),  # type: ignore[arg-type]
    "another class": lambda layer: setattr(text(layer), "dropout", nn.Dropout(0.5).eval()),
    "no bias": lambda layer: setattr(text(layer).projection, "bias", None),
    "another type": lambda layer: (text(layer).float(), layer._maps("text").float()),
    "another dilation": lambda layer: setattr(text(layer).stages[1].convolutions[0], "dilation", (3,)),
    "checkpointing": lambda layer: checkpointed(text(layer)),
    "a patched forward": lambda layer: setattr(text(layer), "forward", text(layer).forward),
    "weights that are no parameters": lambda layer: without_parameters(text(layer).stages[0].norm),
    "another rounding": lambda layer: setattr(text(layer).stages[1].norm, "eps", 0.1),
}


def computed_together(layer: SemanticHierarchyEncoder, inputs: dict[str, Tensor]) -> tuple[list[int], Any]:
    """Returns the widths of the inputs that were computed together, and the levels."""
    with patch.object(hierarchy, "levels_together", wraps=levels_together) as used:
        levels = layer(inputs)
    return [values.shape[-1] for values in used.call_args.args[2]], levels


@pytest.mark.parametrize("change", CHANGES)
def test_a_modality_that_was_changed_is_computed_by_itself(change: str) -> None:
    layer, (inputs, _) = encoder(), batch(5)
    CHANGES[change](layer)
    if change == "another type":
        inputs["text"] = inputs["text"].float()
    widths, levels = computed_together(layer, inputs)
    assert widths == [WIDTHS["vision"], WIDTHS["audio"]]
    with patch.object(hierarchy, "group_key", lambda *_: None):
        torch.testing.assert_close(levels, layer(inputs))


def test_modalities_of_other_lengths_or_rates_of_dropout_are_computed_apart() -> None:
    layer, (inputs, _) = encoder(), batch(5)
    widths, levels = computed_together(layer, {**inputs, "text": inputs["text"][:, :4]})
    assert widths == [WIDTHS["vision"], WIDTHS["audio"]]
    assert [values.shape[1] for values in levels[0].values()] == [4, 5, 5]
    layer.encoder("vision").train()
    assert computed_together(layer, inputs)[0] == [WIDTHS["text"], WIDTHS["audio"]]


def test_modalities_on_a_cpu_are_computed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with patch.object(hierarchy, "levels_together") as used:
        encoder()(batch(5)[0])
    assert not used.called


def test_encoders_with_another_number_of_levels_are_named() -> None:
    encoders = {name: TemporalConvLevels(width, 8, 3) for name, width in WIDTHS.items()}
    layer = SemanticHierarchyEncoder(6, encoders, num_levels=2).double()
    with pytest.raises(ValueError, match=r"encoders\['text'\] must give 2 levels, gave 3"):
        layer(batch(5)[0])


def test_wrong_features_and_masks_are_named() -> None:
    layer, (inputs, _) = encoder(), batch(5)
    with pytest.raises(
        ValueError, match=r"modality 'vision': inputs must have shape \(batch, tokens, 3\), got \(3, 5, 2\)"
    ):
        layer({**inputs, "vision": inputs["vision"][..., :2]})
    with pytest.raises(ValueError, match="modality 'audio': mask must"):
        layer(inputs, {"audio": torch.ones(3, 6, dtype=torch.bool)})
