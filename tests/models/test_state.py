"""The state of a model survives copying, saving, other dtypes, compilation and export."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multifuse import CLCRConfig, CLCRForPrediction
from tests.sizes import SMALL_SIZES

WIDTHS = {"text": 6, "audio": 3}


def network(**options: Any) -> CLCRForPrediction:
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    model: CLCRForPrediction = CLCRForPrediction(CLCRConfig(modalities=modalities, **{**SMALL_SIZES, **options}))
    model.eval()
    return model


def inputs() -> dict[str, Tensor]:
    return {
        name: torch.randn(3, 5, width, generator=torch.Generator().manual_seed(1)) for name, width in WIDTHS.items()
    }


def trained(**options: Any) -> CLCRForPrediction:
    """Returns a model after a training step, so that no weight has its initial value."""
    model = network(**options)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(inputs(), labels=torch.ones(3)).loss.backward()
    optimizer.step()
    model.eval()
    return model


@pytest.mark.parametrize("parametrization", ["cholesky", "geotorch"])
def test_a_saved_state_restores_the_same_model(tmp_path: Path, parametrization: str) -> None:
    model, fresh = (trained(parametrization=parametrization) for _ in range(2))
    torch.save(model.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(fresh(inputs()).logits, model(inputs()).logits)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin")), "weights must be saved only as safetensors"
    # geotorch lays its bases out again, which changes the last bits.
    torch.testing.assert_close(CLCRForPrediction.from_pretrained(tmp_path)(inputs()).logits, model(inputs()).logits)


@pytest.mark.parametrize("parametrization", ["cholesky", "geotorch"])
def test_a_deep_copy_is_independent(parametrization: str) -> None:
    model = trained(parametrization=parametrization)
    before = model(inputs()).logits
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    assert torch.equal(model(inputs()).logits, before)
    assert not torch.allclose(other(inputs()).logits, before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02), (torch.float64, 1e-4)])
def test_a_model_loads_in_another_dtype(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    model = trained()
    model.save_pretrained(tmp_path)
    loaded = CLCRForPrediction.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    logits = loaded({name: values.to(dtype) for name, values in inputs().items()}).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), model(inputs()).logits, atol=tolerance, rtol=tolerance)


def test_a_compiled_models_state_loads_into_a_plain_model() -> None:
    model, fresh = trained(), network()
    compiled: Any = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(inputs()).logits, model(inputs()).logits)
    fresh.load_state_dict(compiled._orig_mod.state_dict())
    assert torch.equal(fresh(inputs()).logits, model(inputs()).logits)


def test_loading_a_state_updates_a_compiled_model() -> None:
    model, other = network(), trained()
    compiled: Any = torch.compile(model, backend="eager")
    compiled(inputs())
    assert {name.removeprefix("_orig_mod.") for name in compiled.state_dict()} == set(model.state_dict())
    compiled.load_state_dict({f"_orig_mod.{name}": weight for name, weight in other.state_dict().items()})
    torch.testing.assert_close(compiled(inputs()).logits, other(inputs()).logits)


def test_a_model_saved_in_bfloat16_loads_in_float32(tmp_path: Path) -> None:
    half = trained().to(torch.bfloat16)
    half.save_pretrained(tmp_path)
    loaded = CLCRForPrediction.from_pretrained(tmp_path, dtype=torch.float32)
    expected = half.float().state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())


def test_an_exported_model_matches_for_another_batch_size_and_after_saving(tmp_path: Path) -> None:
    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = trained()

        def forward(self, text: Tensor, audio: Tensor) -> Tensor:
            logits: Tensor = self.model({"text": text, "audio": audio}).logits
            return logits

    module, example = Logits().eval(), inputs()
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(
        module, (example["text"], example["audio"]), dynamic_shapes={"text": {0: batch}, "audio": {0: batch}}
    )
    doubled = [torch.cat([values, values]) for values in example.values()]
    torch.testing.assert_close(exported.module()(*doubled), module(*doubled))
    torch.export.save(exported, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2")
    torch.testing.assert_close(loaded.module()(*doubled), module(*doubled))
    assert all(torch.equal(loaded.state_dict[name], weight) for name, weight in module.state_dict().items())
