"""Programs compute what their models do, at sizes that were not exported, and only such programs are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import multifuse
from multifuse import CLCRConfig, CLCRForPrediction, IntraCED, TokenBudget
from multifuse.deployment import ExportError, exported, formats
from multifuse.deployment.exported import Traced, trace
from multifuse.deployment.signature import signature_of

TEXT = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


def model() -> CLCRForPrediction:
    torch.manual_seed(0)
    modalities = {
        "text": {"encoder": "text", "config": TEXT},
        "audio": {"encoder": "temporal_conv", "input_size": 5},
    }
    config = CLCRConfig(
        modalities=modalities, hidden_size=8, shared_rank=4, private_rank=2, num_heads=2, num_levels=1, max_positions=40
    )
    network = CLCRForPrediction(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # weights of modalities start uniform
    network.train()
    return network


@pytest.fixture(scope="module")
def network() -> CLCRForPrediction:
    return model()


@pytest.fixture(scope="module")
def traced(network: CLCRForPrediction) -> Traced:
    return trace(network)


def batch() -> dict[str, Tensor]:
    return {
        "text": torch.randint(50, (4, 6)),
        "audio": torch.randn(4, 25, 5),
        "text.mask": torch.arange(6) < torch.tensor([[6], [2], [0], [1]]),
        "audio.mask": torch.arange(25) < torch.tensor([[25], [1], [9], [0]]),
    }


def logits(network: CLCRForPrediction, batch: dict[str, Tensor]) -> Tensor:
    inputs = {name: batch[name] for name in ("text", "audio")}
    mask = {name: batch[f"{name}.mask"] for name in inputs}
    with torch.no_grad():
        result: Tensor = network.eval()(inputs, mask).logits
    return result


def test_a_program_needs_no_operator_of_ours_and_no_weights_of_bases(traced: Traced) -> None:
    assert not any("multifuse" in str(node.target) for node in traced.program.graph.nodes)
    assert not any("projector" in name for name, _ in traced.program.named_parameters())


def test_onnxruntime_gives_the_logits_of_the_model_by_the_documented_names(
    network: CLCRForPrediction, traced: Traced, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    written = traced.write(tmp_path / "model.onnx", "onnx", 1e-5)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    shapes = {value.name: value.shape for value in session.get_inputs()}
    assert shapes == {
        "text": ["batch", "text_length"],
        "audio": ["batch", "audio_length", 5],
        "text.mask": ["batch", "text_length"],
        "audio.mask": ["batch", "audio_length"],
    }
    assert written.sizes == {"batch": (1, None), "text_length": (1, 40), "audio_length": (1, 40)}
    assert [check.sizes["batch"] for check in written.checks] == [3, 1, 7, 1]
    assert written.outputs == ("logits", "level_weights", "modality_weights", "private_gates")
    inputs = batch()
    (ours,) = session.run(["logits"], {name: values.numpy() for name, values in inputs.items()})
    np.testing.assert_allclose(ours, logits(network, inputs).numpy(), atol=1e-5, rtol=1e-5)


def test_aotinductor_compiles_a_package_that_names_its_inputs(tmp_path: Path) -> None:
    written = multifuse.export(TokenBudget(), tmp_path / "budget.pt2", format="aoti", tolerance=1e-5)
    program = torch._inductor.aoti_load_package(str(tmp_path / "budget.pt2"))
    metadata = program.loader.get_metadata()
    assert (metadata["inputs"].split(), metadata["outputs"]) == (["evidence", "mask"], "output")
    assert max(check.sizes["tokens"] for check in written.checks) > 7


def test_a_program_that_differs_is_refused_and_leaves_no_file(
    traced: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def biased(path: Path, names: formats.Names) -> formats.Runner:
        return lambda inputs: {
            name: values + 0.01 * (name == "logits") for name, values in traced.module(inputs).items()
        }

    monkeypatch.setitem(formats.LOADERS, "export", biased)
    with pytest.raises(ExportError, match=r"differs from the model by 1\.\de-02 at \{'batch': 3"):
        traced.write(tmp_path / "model.pt2", "export", 1e-4)
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_model_as_it_was(network: CLCRForPrediction, traced: Traced) -> None:
    assert "clcr.exchanges.0.projector.shared_weight" in network.state_dict()
    assert "module.clcr.exchanges.0.projector.shared_weight" not in traced.program.state_dict
    network.train()
    network.clcr.aggregation.eval()
    with exported._evaluating(network):
        assert not any(module.training for module in network.modules())
    assert network.training
    assert not network.clcr.aggregation.training


def test_the_outputs_can_be_chosen_and_unknown_ones_are_named() -> None:
    layer = IntraCED(8, ("text", "audio"), num_heads=2)
    with pytest.raises(ValueError, match=r"outputs must be among \['tokens.text', .*got 'logits'"):
        trace(layer, outputs=("logits",))


def test_a_module_of_somebodys_own_needs_an_example() -> None:
    with pytest.raises(ValueError, match="example must be given for a Sequential"):
        trace(nn.Sequential(TokenBudget()))
    with pytest.raises(ValueError, match="example must hold tensors that are not empty, got 3 at 'input'"):
        trace(nn.Sequential(TokenBudget()), example=(3,))


def test_a_format_whose_library_is_missing_is_explained_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(formats, "import_module", missing)
    with pytest.raises(ImportError, match=r"onnx is missing: pip install 'multifuse\[export\]'"):
        multifuse.export(TokenBudget(), "budget.onnx", format="onnx")
    with pytest.raises(ValueError, match="format must be one of 'export', 'onnx', 'aoti', got 'torchscript'"):
        multifuse.export(TokenBudget(), "budget.pt", format="torchscript")  # type: ignore[arg-type]


def test_tracing_by_jit_is_refused() -> None:
    tokens = {"text": torch.randn(2, 3, 8), "audio": torch.randn(2, 5, 8)}
    for module, arguments in (
        (IntraCED(8, ("text", "audio"), num_heads=2), (tokens,)),
        (TokenBudget(), (torch.rand(2, 3),)),
        (multifuse.StiefelProjector(8, ("text", "audio"), shared_rank=2, private_rank=2), (tokens,)),
        (multifuse.TemporalConvLevels(8, 4), (tokens["text"],)),
    ):
        deprecated = pytest.warns((DeprecationWarning, FutureWarning), match="jit")  # the latter from torch 2.14 on
        with deprecated, pytest.raises(RuntimeError, match="trace keeps the sizes"):
            torch.jit.trace(module, arguments, strict=False)


def test_sizes_of_what_has_no_backbone_are_refused(network: CLCRForPrediction) -> None:
    with pytest.raises(ValueError, match=r"modalities with a backbone \(they are \[.*\]\), got 'vison'"):
        signature_of(network, None, None, {"vison": (3, 8, 8)})
    with pytest.raises(ValueError, match=r"\(with an example there are none\), got 'image'"):
        signature_of(TokenBudget(), (torch.rand(2, 3),), None, {"image": (3, 8, 8)})


def test_examples_are_no_longer_than_a_model_allows() -> None:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 5} for name in ("vision", "audio")}
    config = CLCRConfig(modalities=modalities, hidden_size=16, shared_rank=8, private_rank=4, max_positions=8)
    sizes = signature_of(CLCRForPrediction(config), None, None, {}).sizes()
    assert sizes == {"batch": 3, "vision_length": 7, "audio_length": 7}


def test_a_model_that_returns_tuples_is_exported_with_names(network: CLCRForPrediction) -> None:
    network.config.return_dict = False
    try:
        outputs = exported.trace(network).outputs
        assert not network.config.return_dict
    finally:
        network.config.return_dict = True
    assert outputs == ("logits", "level_weights", "modality_weights", "private_gates")
