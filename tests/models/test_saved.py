"""Saved models from untrusted sources: only safetensors, no code, no memory beyond the size of their weights."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from multifuse import CLCRConfig, CLCRForPrediction, CLCRForSegmentPrediction, CLCRModel
from multifuse.baselines import (
    ConcatenationForPrediction,
    CrossAttentionForPrediction,
    LateFusionForPrediction,
    MulTForPrediction,
)
from multifuse.models.saved import SavedModelError
from tests.files import write
from tests.sizes import SMALL_SIZES

BERT = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}

TWO_SEQUENCES = CLCRConfig(
    modalities={name: {"encoder": "temporal_conv", "input_size": 3} for name in ("a", "b")}, **SMALL_SIZES
)


def network() -> CLCRForPrediction:
    modalities = {
        "text": {"encoder": "text", "config": {"model_type": "bert", **BERT}},
        "audio": {"encoder": "temporal_conv", "input_size": 3},
    }
    model: CLCRForPrediction = CLCRForPrediction(CLCRConfig(modalities=modalities, **SMALL_SIZES))
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    network().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("hostile", [False, True])
def test_pickled_weights_are_refused(saved: Path, tmp_path: Path, hostile: bool) -> None:
    (saved / "model.safetensors").unlink()
    if hostile:
        write(saved / "pytorch_model.bin", _Hostile(tmp_path / "executed"))
    else:
        torch.save(network().state_dict(), saved / "pytorch_model.bin")
    with pytest.raises(SavedModelError, match="holds no safetensors file; weights in a pickle are refused"):
        CLCRForPrediction.from_pretrained(saved)
    with pytest.raises(ValueError, match="use_safetensors must not be False"):
        CLCRForPrediction.from_pretrained(saved, use_safetensors=False)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", [CrossAttentionForPrediction, CLCRForPrediction])
def test_a_model_is_not_loaded_from_the_weights_of_another_one(kind: type[Any], tmp_path: Path) -> None:
    """transformers would draw what is missing, and say so in a log alone."""
    model = LateFusionForPrediction(network().config)
    model.save_pretrained(tmp_path)
    with pytest.raises(SavedModelError, match=f"of {kind.__name__}: it is LateFusionForPrediction"):
        kind.from_pretrained(tmp_path)
    assert isinstance(LateFusionForPrediction.from_pretrained(tmp_path), LateFusionForPrediction)


@pytest.mark.parametrize("source", [MulTForPrediction, CrossAttentionForPrediction])
@pytest.mark.parametrize("options", [{}, {"ignore_mismatched_sizes": True}, {"config": TWO_SEQUENCES}], ids=str)
def test_a_baseline_that_has_all_weights_of_another_is_not_loaded_as_it(
    source: type[Any], options: dict[str, Any], tmp_path: Path
) -> None:
    source(TWO_SEQUENCES).save_pretrained(tmp_path)
    with pytest.raises(SavedModelError, match=f"LateFusionForPrediction lacks: it is {source.__name__}") as caught:
        LateFusionForPrediction.from_pretrained(tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert isinstance(source.from_pretrained(tmp_path, **options), source)


def test_a_baseline_of_other_shapes_or_a_model_without_its_fusion_is_not_loaded_as_it(tmp_path: Path) -> None:
    for source, options in ((ConcatenationForPrediction, {"ignore_mismatched_sizes": True}), (CLCRModel, {})):
        source(TWO_SEQUENCES).save_pretrained(tmp_path)
        with pytest.raises(SavedModelError, match=f"of LateFusionForPrediction: it is {source.__name__}"):
            LateFusionForPrediction.from_pretrained(tmp_path, **options)


def test_models_with_another_head_or_none_are_loaded_from_one_another(tmp_path: Path) -> None:
    CLCRForPrediction(TWO_SEQUENCES).save_pretrained(tmp_path / "whole")
    CLCRModel(TWO_SEQUENCES).save_pretrained(tmp_path / "headless")
    for kind in (CLCRModel, CLCRForPrediction, CLCRForSegmentPrediction):
        for folder in ("whole", "headless"):
            assert type(kind.from_pretrained(tmp_path / folder)) is kind


@pytest.mark.parametrize(
    "fields",
    [
        {"level_temperature": 1000},
        {"gamma": 100000, "level_temperature": 10**6},
        {"id2label": {0: "stage", 1: "layer"}, "label2id": {"stage": 100000, "layer": 1}},
    ],
)
def test_a_large_number_that_is_no_count_of_modules_does_not_keep_a_model_from_loading(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    config = CLCRConfig(modalities=TWO_SEQUENCES.modalities, **SMALL_SIZES, **fields)
    CLCRForPrediction(config).save_pretrained(tmp_path)
    loaded = CLCRForPrediction.from_pretrained(tmp_path).config
    assert {name: getattr(loaded, name) for name in fields} == fields


def test_a_large_width_or_label_of_an_encoder_does_not_keep_a_model_from_loading(tmp_path: Path) -> None:
    """Names such as Qwen2-MoE's ``shared_expert_intermediate_size`` hold a word for modules, and are widths."""
    config = {"model_type": "bert", **BERT, "expert_intermediate_size": 10**6, "label2id": {"stage": 10**6}}
    modalities = {"text": {"encoder": "text", "config": config}}
    CLCRForPrediction(CLCRConfig(modalities=modalities, **SMALL_SIZES)).save_pretrained(tmp_path)
    assert isinstance(CLCRForPrediction.from_pretrained(tmp_path), CLCRForPrediction)


def test_pickled_weights_of_a_pretrained_encoder_are_refused(tmp_path: Path) -> None:
    encoder = BertModel(BertConfig(**BERT))
    encoder.save_pretrained(tmp_path)
    model = network()
    model.load_text_encoder("text", str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(encoder.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        model.load_text_encoder("text", str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_levels": 2**20}, "config.num_levels must be at most the .* tensors stored, got 1048576"),
        ({"max_positions": 2**40}, "config.json declares .* weights, of which .* are stored"),
        ({"hidden_size": 2**16}, "config.json declares .* weights, of which .* are stored"),
        ({"num_labels": 2**40}, "num_labels must be at most"),
        ({"id2label": {"a": "b"}}, "cannot be loaded as a model: ValueError"),
        ({"modalities": {"a": {"encoder": "temporal_conv", "input_size": 3, "dropout": "x"}}}, "cannot be loaded"),
        ({"_attn_implementation": "organisation/kernel"}, "not code from the Hub, got 'organisation/kernel'"),
        ({"attn_implementation": "organisation/kernel"}, "not code from the Hub, got 'organisation/kernel'"),
    ],
)
def test_a_hostile_config_is_refused_with_a_one_line_error(saved: Path, fields: dict[str, Any], message: str) -> None:
    change(saved, **fields)
    with pytest.raises(SavedModelError, match=message) as caught:
        CLCRForPrediction.from_pretrained(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_named_by_a_config_is_ignored_or_refused(saved: Path) -> None:
    content = json.loads((saved / "config.json").read_text())
    content["modalities"]["text"]["config"]["auto_map"] = {"AutoModel": "organisation/hostile--code.Model"}
    change(saved, **content, auto_map={"AutoModel": "code.Model", "AutoConfig": "code.Config"})
    assert isinstance(CLCRForPrediction.from_pretrained(saved), CLCRForPrediction)
    content["modalities"]["text"]["config"]["attn_implementation"] = "organisation/kernel"
    change(saved, **content)
    with pytest.raises(SavedModelError, match="not code from the Hub"):
        CLCRForPrediction.from_pretrained(saved)
