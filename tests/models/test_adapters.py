"""Adapters of peft on CLCR's encoders: what is outside them is named, trained, saved and loaded."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import BertConfig

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.baselines import LateFusionForPrediction
from multifuse.models.modeling_base import CLCRPreTrainedModel

TARGETS = r".*encoders\.modality_text\..*\.(query|value)"
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def config() -> CLCRConfig:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    text = {"encoder": "text", "config": BertConfig(vocab_size=20, **sizes).to_dict()}
    image = CLCRConfig.backbone_modality("image", name_or_folder="resnet-small")
    modalities = {"text": text, "audio": {"encoder": "temporal_conv", "input_size": 3}, "image": image}
    return CLCRConfig(modalities=modalities, hidden_size=8, shared_rank=4, private_rank=2, num_levels=2)


@pytest.mark.parametrize("model_class", [CLCRForPrediction, LateFusionForPrediction])
@pytest.mark.parametrize("excluded", [("text",), ("text", "image"), ()])
def test_the_named_modules_hold_every_weight_outside_the_excluded_models_once(
    model_class: type[CLCRPreTrainedModel], excluded: tuple[str, ...]
) -> None:
    model = model_class(config())
    named = [weight for name in model.modules_outside(*excluded) for weight in model.get_submodule(name).parameters()]
    (hierarchy,) = (part for name, part in model.named_modules() if name.split(".")[-1] == "hierarchy")
    inside = {id(weight) for name in excluded for weight in hierarchy.encoder(name).model.parameters()}  # type: ignore[operator]
    assert len(named) == len({id(weight) for weight in named})
    assert {id(weight) for weight in named} == {id(weight) for weight in model.parameters()} - inside


def test_a_modality_without_a_model_of_transformers_is_refused() -> None:
    model = CLCRForPrediction(config())
    with pytest.raises(ValueError, match="modality 'audio' has a TemporalConvLevels, not a model of transformers"):
        model.modules_outside("audio")
    with pytest.raises(ValueError, match=r"has modalities \['speech'\]"):
        model.modules_outside("speech")


def test_lora_trains_all_but_the_text_encoder_and_loads_what_it_saved(tmp_path: Path) -> None:
    base = CLCRForPrediction(config())
    base.save_pretrained(tmp_path / "base")
    names = base.modules_outside("text")
    outside = sum(weight.numel() for name in names for weight in base.get_submodule(name).parameters())
    model = get_peft_model(base, LoraConfig(target_modules=TARGETS, modules_to_save=names))
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert sum(weight.numel() for name, weight in trained.items() if "lora_" not in name) == outside
    inputs = {"text": torch.randint(20, (6, 4)), "audio": torch.randn(6, 5, 3), "image": torch.rand(6, 1, 3, 32, 32)}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # LoRA starts at 0: only the second step has a gradient for both of its factors
        optimizer.zero_grad()
        model.train()(inputs, labels=torch.randn(6)).loss.backward()
        optimizer.step()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trained.values())
    expected = model.eval()(inputs).logits
    model.save_pretrained(tmp_path / "adapter")
    fresh = CLCRForPrediction.from_pretrained(tmp_path / "base")
    assert not torch.allclose(fresh.eval()(inputs).logits, expected)
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(inputs).logits, expected)
    torch.testing.assert_close(loaded.merge_and_unload()(inputs).logits, expected)
