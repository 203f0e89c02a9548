"""CLCRConfig: what is saved is what is loaded, whatever the number of labels and their names."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.baselines import LateFusionForPrediction
from tests.sizes import SMALL_SIZES

MODALITIES = {"audio": {"encoder": "temporal_conv", "input_size": 3}}
TWO = {"a": {"encoder": "temporal_conv", "input_size": 3}, "b": {"encoder": "temporal_conv", "input_size": 3}}
PROBLEM_TYPES = (None, "regression", "single_label_classification", "multi_label_classification")


def labelled(num_labels: int, problem_type: str | None, names: list[str] | None, **fields: Any) -> CLCRConfig:
    if names is None:
        return CLCRConfig(modalities=MODALITIES, problem_type=problem_type, num_labels=num_labels, **fields)
    id2label = dict(enumerate(names[:num_labels]))
    label2id = {name: index for index, name in id2label.items()}
    return CLCRConfig(modalities=MODALITIES, problem_type=problem_type, id2label=id2label, label2id=label2id, **fields)


@given(
    num_labels=st.integers(1, 5),
    problem_type=st.sampled_from(PROBLEM_TYPES),
    names=st.none() | st.lists(st.text(max_size=4), min_size=5, max_size=5, unique=True),
)
def test_a_saved_config_is_loaded_with_its_labels(
    num_labels: int, problem_type: str | None, names: list[str] | None
) -> None:
    if problem_type == "single_label_classification" and num_labels == 1:
        with pytest.raises(ValueError, match="requires `num_labels > 1`"):
            labelled(num_labels, problem_type, names)
        return
    config = labelled(num_labels, problem_type, names)
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        loaded = CLCRConfig.from_pretrained(folder)
    assert loaded.num_labels == num_labels
    assert loaded.to_dict() == config.to_dict()


def test_a_saved_regression_of_two_outputs_is_loaded(tmp_path: Path) -> None:
    config = labelled(2, "regression", None, hidden_size=16, shared_rank=8, private_rank=4)
    model = CLCRForPrediction(config).eval()
    model.save_pretrained(tmp_path)
    inputs = {"audio": torch.randn(3, 6, 3)}
    loaded = CLCRForPrediction.from_pretrained(tmp_path)
    assert loaded(inputs).logits.shape == (3, 2)
    torch.testing.assert_close(loaded(inputs).logits, model(inputs).logits)


def test_a_config_that_was_saved_without_its_two_labels_is_loaded_by_naming_their_number(tmp_path: Path) -> None:
    labelled(2, "regression", None).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["id2label"], content["label2id"]
    path.write_text(json.dumps(content))
    assert CLCRConfig.from_pretrained(tmp_path, num_labels=2).num_labels == 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    CLCRForPrediction(CLCRConfig(modalities=TWO, **SMALL_SIZES)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"problem_type": "multi_label"}, "problem_type must be one of None, .*got 'multi_label'"),
        ({"lambda_intra": -1.0}, "lambda_intra must be in .*got -1.0"),
        ({"regression_loss": "huber"}, "regression_loss must be one of .*got 'huber'"),
        ({"num_segments": 0}, "num_segments must be an integer >= 1, got 0"),
        ({"num_labels": 0}, "num_labels must be an integer >= 1, got 0"),
        ({"modality_dropout": {"smell": 0.5}}, "modality_dropout has modalities .'smell'."),
        ({"modality_order": ["a"]}, r"modality_order must name \['a', 'b'\], got \['a'\]"),
    ],
)
def test_a_field_given_to_from_pretrained_is_checked_as_in_the_constructor(
    saved: Path, field: dict[str, Any], message: str
) -> None:
    for load in (CLCRConfig.from_pretrained, CLCRForPrediction.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match=message) as caught:
            load(saved, **field)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lambda_intra", -1.0), ("num_labels", 0), ("regression_loss", "huber"), ("modality_order", ["b", "a"])],
)
def test_a_field_that_was_set_on_a_config_is_checked_when_a_model_is_made(name: str, value: Any) -> None:
    config = CLCRConfig(modalities=TWO, **SMALL_SIZES)
    setattr(config, name, value)
    for kind in (CLCRForPrediction, LateFusionForPrediction):
        with pytest.raises(ValueError, match=f"{name} must be"):
            kind(config)


def test_fields_given_to_from_pretrained_replace_those_of_the_file_with_what_depends_on_them(saved: Path) -> None:
    load = CLCRConfig.from_pretrained
    classes = load(saved, num_labels=3, problem_type="single_label_classification")
    assert classes.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert load(saved, id2label={"0": "sad", "1": "glad"}).id2label == {0: "sad", 1: "glad"}
    swapped = load(saved, modality_order=["b", "a"])
    assert swapped.modality_order == list(swapped.modalities) == ["b", "a"]
    named_swapped = load(saved, modalities=dict(reversed(TWO.items())))
    assert named_swapped.modality_order == list(named_swapped.modalities) == ["a", "b"]
    other = load(saved, modalities={"c": TWO["a"]})
    assert other.modality_order == list(other.modalities) == ["c"]
    config, unused = load(saved, lambda_intra=0.5, unknown=1, return_unused_kwargs=True)
    assert config.lambda_intra == 0.5
    assert unused == {"unknown": 1}


def test_modalities_in_another_order_than_that_of_the_weights_are_refused_with_both(saved: Path) -> None:
    swapped = CLCRConfig(modalities=dict(reversed(TWO.items())), **SMALL_SIZES)
    message = r"has weights of the modalities in the order \['a', 'b'\], the config has \['b', 'a'\]"
    for options in ({"config": swapped}, {"modality_order": ["b", "a"]}):
        with pytest.raises(ValueError, match=message) as caught:
            CLCRForPrediction.from_pretrained(saved, **options)
        assert "\n" not in str(caught.value)
    same = CLCRForPrediction.from_pretrained(saved, config=CLCRConfig(modalities=TWO, **SMALL_SIZES)).eval()
    inputs = {name: torch.randn(2, 5, 3) for name in TWO}
    assert torch.equal(same(inputs).logits, CLCRForPrediction.from_pretrained(saved)(inputs).logits)
    renamed = CLCRConfig(modalities={"left": TWO["a"], "b": TWO["b"]}, **SMALL_SIZES)
    assert list(CLCRForPrediction.from_pretrained(saved, config=renamed).config.modalities) == ["left", "b"]


FRAMES: dict[str, Any] = {"model_type": "resnet", "num_channels": 3, "embedding_size": 4, "hidden_sizes": [4]}
FRAMES |= {"depths": [1], "layer_type": "basic"}


def test_every_field_reaches_the_part_that_it_is_of() -> None:
    modalities = {
        "audio": {"encoder": "temporal_conv", "input_size": 3, "dropout": 0.7},
        "text": {"encoder": "temporal_conv", "input_size": 2},
        "vision": {
            "encoder": "image",
            "config": FRAMES,
            "dropout": 0.6,
            "grid": [1, 2],
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
        },
    }
    fields: dict[str, Any] = {"dropout": 0.3, "gamma": 0.9, "init_participation": 0.4, "init_exchange": "identity"}
    fields |= {"level_temperature": 2.0, "level_floor": 0.1, "modality_temperature": 3.0, "modality_floor": 0.2}
    fields |= {"init_last_level": 0.8, "positions": "sinusoidal", "max_positions": 77, "parametrization": "geotorch"}
    fields |= {"eps": 0.05, "debias": False}
    network = CLCRForPrediction(CLCRConfig(modalities=modalities, **{**SMALL_SIZES, **fields}))
    shown: dict[str, tuple[Any, str]] = {
        "aggregation": (network.clcr.aggregation, "level_temperature=2.0, level_floor=0.1, modality_temperature=3.0, "),
        "aggregation's rest": (network.clcr.aggregation, "modality_floor=0.2, init_last_level=0.8"),
        "hierarchy": (network.clcr.hierarchy, "num_levels=2, positions='sinusoidal', max_positions=77"),
        "exchange": (network.clcr.exchanges[1], "gamma=0.9, dropout=0.3, init='identity', init_participation=0.4"),
        "projector": (network.clcr.exchanges[1].projector, "parametrization='geotorch'"),
        "audio": (network.clcr.hierarchy.encoder("audio"), "dropout=0.7"),
        "text": (network.clcr.hierarchy.encoder("text"), "dropout=0.3"),
        "vision": (network.clcr.hierarchy.encoder("vision"), "dropout=0.6, grid=(1, 2), mean=(0.1, 0.2, 0.3), "),
        "vision's rest": (network.clcr.hierarchy.encoder("vision"), "std=(0.4, 0.5, 0.6)"),
        "head": (network.head[3], "p=0.3"),
        "intra": (network.intra_loss, "eps=0.05, debias=False"),
        "inter": (network.inter_loss, "eps=0.05, debias=False"),
    }
    assert not {name: part.extra_repr() for name, (part, text) in shown.items() if text not in part.extra_repr()}
