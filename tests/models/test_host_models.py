"""Our layers inside a user's transformers model: they initialise themselves, and keep weights that are loaded."""

import inspect
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel

from multifuse import InterCAD, IntraCED, SemanticHierarchyEncoder, TemporalConvLevels

NAMES = ("text", "audio")
CONFIG = BertConfig(
    vocab_size=20,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    initializer_range=5.0,
)
"""Its initialisation is so far from ours that a layer initialised by the host is obvious."""


def layers(parametrization: Literal["cholesky", "geotorch"]) -> dict[str, nn.Module]:
    return {
        "hierarchy": SemanticHierarchyEncoder(16, {"audio": TemporalConvLevels(5, 16, 2)}, 2),
        "exchange": IntraCED(
            16, NAMES, shared_rank=8, private_rank=4, parametrization=parametrization, init_participation=0.4
        ),
        "aggregation": InterCAD(16, NAMES, num_levels=2, init_last_level=0.8),
    }


class Host(BertPreTrainedModel):
    """A user's model, which does not know how our layers are initialised."""

    parametrization: Literal["cholesky", "geotorch"] = "cholesky"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        for name, layer in layers(self.parametrization).items():
            self.add_module(name, layer)
        self.post_init()


class GeotorchHost(Host):
    parametrization = "geotorch"


HOSTS = pytest.mark.parametrize("host", [Host, GeotorchHost])


@torch.no_grad()
def assert_our_initialisation(model: Any) -> None:
    exchange, aggregation = model.exchange, model.aggregation
    for name, layer in layers(model.parametrization).items():
        for key, weight in layer.state_dict().items():
            initial = model.get_submodule(name).state_dict()[key]
            assert initial.isfinite().all(), key
            assert initial.abs().max() <= 10 * weight.abs().max().clamp(min=1e-3), (name, key)
    assert float(exchange.budget.log_sharpness.exp()) == pytest.approx(4.0)
    assert float(exchange.budget.participation_logit.sigmoid()) == pytest.approx(0.4)
    assert not exchange.output.bias.any()
    assert exchange.query_key_value.weight.abs().max() <= (6 / (8 + 24)) ** 0.5, "Xavier, not the host's normal"
    assert not aggregation.level_scorer[-1].weight.any()
    assert float(aggregation.level_bias.softmax(0)[-1]) == pytest.approx(0.8)
    shared = exchange.projector.shared_basis
    torch.testing.assert_close(shared.mT @ shared, torch.eye(8), atol=1e-5, rtol=0)


@HOSTS
def test_a_new_host_keeps_the_initialisation_of_our_layers(host: type[Host]) -> None:
    model = host(CONFIG)
    assert_our_initialisation(model)
    assert float(model.bert.encoder.layer[0].output.dense.weight.detach().std()) > 1, (
        "the host did not initialise its own layers"
    )


@HOSTS
def test_layers_missing_from_a_checkpoint_are_initialised(host: type[Host], tmp_path: Path) -> None:
    """They once kept uninitialised memory: NaN and 1e19 in the projector, the budget and InterCAD."""
    BertModel(CONFIG).save_pretrained(tmp_path)
    torch.manual_seed(1)
    junk = [torch.full((64, 64), float("nan")) for _ in range(50)]
    del junk
    assert_our_initialisation(host.from_pretrained(tmp_path))


@HOSTS
def test_weights_in_a_checkpoint_are_loaded_and_the_rest_initialised(host: type[Host], tmp_path: Path) -> None:
    model: Any = host(CONFIG)
    with torch.no_grad():
        for weight in model.aggregation.parameters():
            weight.add_(1.0)
        model.exchange.budget.threshold.fill_(0.25)
    saved = {
        name: weight
        for name, weight in model.state_dict().items()
        if not name.startswith(("exchange.output", "exchange.projector", "aggregation.anchors", "aggregation.query"))
    }
    model.save_pretrained(tmp_path, state_dict=saved)
    loaded: Any = host.from_pretrained(tmp_path)
    for name, weight in loaded.state_dict().items():
        if name in saved:
            assert torch.equal(weight, saved[name]), name
        else:
            assert weight.isfinite().all(), name
    assert loaded.exchange.output.weight.any()
    assert not loaded.exchange.output.bias.any()
    assert 0 < float(loaded.aggregation.anchors.detach().abs().max()) < 0.2


@HOSTS
def test_a_complete_checkpoint_is_loaded_unchanged(host: type[Host], tmp_path: Path) -> None:
    model: Any = host(CONFIG)
    model.save_pretrained(tmp_path)
    loaded: Any = host.from_pretrained(tmp_path)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, msg=name)
    torch.testing.assert_close(loaded.exchange.projector.shared_basis, model.exchange.projector.shared_basis)


def test_inspecting_a_layers_attributes_changes_no_weight() -> None:
    """The hook is a property, and a debugger or `inspect` reads every property."""
    layer = IntraCED(16, NAMES, shared_rank=8, private_rank=4)
    nn.init.constant_(layer.budget.threshold, 3.0)
    before = {name: weight.clone() for name, weight in layer.state_dict().items()}
    for module in layer.modules():
        inspect.getmembers(module)
        assert getattr(module, "_is_hf_initialized", True)
    for name, weight in layer.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_reset_parameters_resets_only_a_modules_own_parameters() -> None:
    aggregation = InterCAD(16, NAMES, num_levels=2)
    with torch.no_grad():
        for weight in aggregation.parameters():
            weight.fill_(7.0)
    aggregation.reset_parameters()
    changed = {name for name, weight in aggregation.named_parameters() if not bool((weight == 7.0).all())}
    assert changed == {"anchors", "level_bias"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_layer_accepts_a_device_and_a_dtype(dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"device": "cpu", "dtype": dtype}
    layers = [
        IntraCED(16, NAMES, shared_rank=8, private_rank=4, **options),
        IntraCED(16, NAMES, shared_rank=8, private_rank=4, parametrization="geotorch", **options),
        InterCAD(16, NAMES, num_levels=2, **options),
        SemanticHierarchyEncoder(16, {"audio": TemporalConvLevels(5, 16, 2, **options)}, 2, **options),
    ]
    for layer in layers:
        assert {weight.dtype for weight in layer.parameters()} == {dtype}
        assert {weight.device.type for weight in layer.parameters()} == {"cpu"}
    meta = IntraCED(16, NAMES, shared_rank=8, private_rank=4, device="meta")
    assert {weight.device.type for weight in meta.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            IntraCED(16, NAMES, shared_rank=8, private_rank=4, gamma=0.5, dropout=0.1),
            "num_heads=4, gamma=0.5, dropout=0.1",
        ),
        (
            InterCAD(16, NAMES, num_levels=2, level_floor=0.1),
            "num_levels=2, adaptive=True, level_temperature=1.0, level_floor=0.1",
        ),
        (TemporalConvLevels(5, 16, 2, dropout=0.2), "5, 16, num_levels=2, dropout=0.2"),
        (
            SemanticHierarchyEncoder(16, {"a": TemporalConvLevels(5, 16)}),
            "16, num_levels=3, positions='learned', max_positions=1024",
        ),
    ],
)
def test_repr_shows_sizes_and_options(layer: nn.Module, expected: str) -> None:
    assert expected in repr(layer)


def test_a_rotation_that_a_checkpoint_holds_is_kept_where_the_private_frames_are_drawn(tmp_path: Path) -> None:
    model: Any = GeotorchHost(CONFIG)
    kept = {name: weight for name, weight in model.state_dict().items() if "private_in_complement" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded: Any = GeotorchHost.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.exchange.projector.shared_basis, model.exchange.projector.shared_basis)
    private = loaded.exchange.projector.private_basis("text")
    torch.testing.assert_close(private.mT @ private, torch.eye(4), atol=1e-5, rtol=0)


@HOSTS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_host_loads_in_a_half_type(host: type[Host], dtype: torch.dtype, tmp_path: Path) -> None:
    host(CONFIG).save_pretrained(tmp_path)
    loaded: Any = host.from_pretrained(tmp_path, dtype=dtype)
    assert {weight.dtype for weight in loaded.exchange.parameters()} == {dtype}
    shared = loaded.exchange.projector.shared_basis
    torch.testing.assert_close(shared.mT @ shared, torch.eye(8), atol=1e-5, rtol=0)
