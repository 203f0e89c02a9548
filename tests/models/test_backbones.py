"""CLCR on frames, flow and spectrograms: frame masks, absent modalities, checkpoints, and invalid configs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from multifuse import BackboneLevels, CLCRConfig, CLCRForPrediction, CLCRForSegmentPrediction, CLCRModel
from tests.sizes import SMALL_SIZES

SMALL = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
SIZES: dict[str, Any] = {**SMALL_SIZES, "num_levels": 3}
TASK: dict[str, Any] = {"problem_type": "single_label_classification", "num_labels": 5}


def config(**options: Any) -> CLCRConfig:
    modalities = {
        name: {"encoder": encoder, "config": {"model_type": "resnet", "num_channels": channels, **SMALL}}
        for name, encoder, channels in (("vision", "image", 3), ("audio", "audio", 1), ("flow", "image", 2))
    }
    return CLCRConfig(**{"modalities": modalities, **SIZES, **TASK, **options})


def model(**options: Any) -> CLCRForPrediction:
    torch.manual_seed(0)
    network: CLCRForPrediction = CLCRForPrediction(config(**options)).eval()
    return network


def backbone(network: CLCRForPrediction, modality: str) -> nn.Module:
    levels = network.clcr.hierarchy.encoder(modality)
    assert isinstance(levels, BackboneLevels)
    return levels.model


def inputs(batch: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    values = {
        "vision": torch.rand(batch, 2, 3, 32, 32, generator=generator),
        "audio": torch.randn(batch, 1, 33, 50, generator=generator),
        "flow": torch.rand(batch, 4, 2, 32, 32, generator=generator),
    }
    mask = {
        "vision": torch.tensor([[True, True], [True, False], [True, True]])[:batch],
        "audio": torch.tensor([[True], [True], [False]])[:batch],
        "flow": torch.arange(4) < torch.tensor([[4], [1], [2]])[:batch],
    }
    return values, mask


def test_frame_masks_become_token_masks() -> None:
    values, mask = inputs()
    output = model()(values, mask, labels=torch.tensor([0, 4, 2]))
    assert output.logits.shape == (3, 5)
    activation = output.activations[0]
    assert {name: tuple(alpha.shape) for name, alpha in activation.items()} == {
        "vision": (3, 2 * 16),
        "audio": (3, 5 * 7),
        "flow": (3, 4 * 16),
    }
    assert not activation["vision"][1, 16:].any()
    assert not activation["audio"][2].any()
    assert output.modality_weights[2, 1] == 0


def test_padding_frames_and_other_samples_change_nothing() -> None:
    network = model()
    values, mask = inputs()
    with torch.no_grad():
        together = network(values, mask).logits
        longer = {**values, "vision": torch.cat([values["vision"], torch.full((3, 1, 3, 32, 32), 9.0)], 1)}
        padded = network(
            longer, {**mask, "vision": torch.cat([mask["vision"], torch.zeros(3, 1, dtype=torch.bool)], 1)}
        )
        single = network({n: v[1:2] for n, v in values.items()}, {n: m[1:2] for n, m in mask.items()}).logits
        without = network(
            {n: v[2:] for n, v in values.items() if n != "audio"}, {n: m[2:] for n, m in mask.items() if n != "audio"}
        ).logits
    torch.testing.assert_close(padded.logits, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single, together[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(without, together[2:], rtol=1e-4, atol=1e-5)


def test_every_parameter_receives_a_gradient_and_a_saved_model_loads_unchanged(tmp_path: Path) -> None:
    network = model().train()
    values, mask = inputs()
    network(values, mask, labels=torch.tensor([0, 4, 2])).loss.backward()
    # Bases learn through the codes of their level, and positions through the tokens.
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    network.eval().save_pretrained(tmp_path)
    loaded = CLCRForPrediction.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(values, mask).logits, network(values, mask).logits)


def test_segment_logits_of_frames_and_sound_have_the_documented_shape() -> None:
    torch.manual_seed(0)
    network = CLCRForSegmentPrediction(config(num_segments=2)).eval()
    values, _ = inputs()
    assert network(values, labels=torch.zeros(3, 2, dtype=torch.long)).logits.shape == (3, 2, 5)


def test_a_checkpoint_is_loaded_by_name_for_any_number_of_channels(tmp_path: Path) -> None:
    torch.manual_seed(3)
    pretrained = ResNetModel(ResNetConfig(**SMALL))
    pretrained.save_pretrained(tmp_path)
    modalities = {
        "vision": CLCRConfig.backbone_modality("image", 3, str(tmp_path)),
        "audio": CLCRConfig.backbone_modality("audio", 1, str(tmp_path), grid=[None, 4], mean=[-8.0], std=[4.0]),
    }
    network = CLCRForPrediction(CLCRConfig(modalities=modalities, **SIZES, **TASK))
    name = "embedder.embedder.convolution.weight"
    weight = pretrained.state_dict()[name]
    for modality, expected in (("vision", weight), ("audio", weight.mean(1, keepdim=True) * 3)):
        network.load_backbone(modality, str(tmp_path))
        torch.testing.assert_close(backbone(network, modality).state_dict()[name], expected)
    with pytest.raises(ValueError, match="modality 'vision' has a BackboneLevels, not a text encoder"):
        network.load_text_encoder("vision", str(tmp_path))


def test_resnet_18_from_scratch_has_the_known_number_of_parameters() -> None:
    spec = CLCRConfig.backbone_modality("audio", 1)
    network = CLCRForPrediction(CLCRConfig(modalities={"audio": spec}, **TASK))
    count = sum(parameter.numel() for parameter in backbone(network, "audio").parameters())
    # torchvision's resnet18 has 11,176,512 without its last layer; here, two of three input channels are absent.
    assert count == 11_176_512 - 2 * 64 * 49


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"encoder": "video"}, "must be a dict whose 'encoder' is one of"),
        ({"encoder": "image"}, r"modalities\['m'\]\['config'\] must be a transformers config's dict"),
        (
            {"encoder": "image", "config": {"model_type": "resnet"}, "grid": [0, 1]},
            r"modalities\['m'\]\['grid'\] must be",
        ),
        (
            {"encoder": "audio", "config": {"model_type": "resnet"}, "std": [0.0]},
            r"modalities\['m'\]\['std'\] must be in",
        ),
    ],
)
def test_bad_specifications_are_named(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLCRConfig(modalities={"m": spec})


@pytest.mark.parametrize("kind", ["swin", "albert"])
def test_an_encoder_that_computes_with_its_poolers_result_runs(kind: str) -> None:
    swin = {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 2}
    albert = {"vocab_size": 9, "embedding_size": 4, "hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8}
    encoder, fields = ("image", swin) if kind == "swin" else ("text", albert)
    spec = {"encoder": encoder, "config": {"model_type": kind, **fields}}
    network = CLCRModel(CLCRConfig(modalities={kind: spec}, **SMALL_SIZES)).eval()
    given = torch.rand(2, 1, 3, 16, 16) if kind == "swin" else torch.randint(1, 9, (2, 5))
    assert network({kind: given}).fused.isfinite().all()
