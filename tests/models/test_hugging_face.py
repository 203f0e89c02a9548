"""The contract of transformers: Auto classes, attention, outputs, embeddings, flat arguments, Trainer, offload."""

import inspect
import json
import pickle
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedModel,
    ResNetConfig,
    Trainer,
    TrainingArguments,
)

from multifuse import CLCRConfig, CLCRForPrediction, CLCRModel, CLCRProcessor, FeatureInput
from multifuse.baselines import ConcatenationForPrediction, LateFusionForPrediction
from multifuse.baselines.text import TextBaselineForPrediction
from multifuse.models.flat_inputs import flat_names
from tests.sizes import SMALL_SIZES

BERT: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
AUDIO = {"encoder": "temporal_conv", "input_size": 3}


# The name of transformers 5.23 and later, and the one that it replaces.
CHECKPOINTING = "activation" if hasattr(PreTrainedModel, "activation_checkpointing_enable") else "gradient"


def text(**options: Any) -> dict[str, Any]:
    return {"encoder": "text", "config": {"model_type": "bert", **BERT, **options}}


def config(**options: Any) -> CLCRConfig:
    return CLCRConfig(**{"modalities": {"text": text(), "audio": AUDIO}, "dropout": 0.0, **SMALL_SIZES, **options})


def model(kind: Any = CLCRForPrediction, **options: Any) -> Any:
    return kind(config(**options)).eval()


def inputs(batch: int = 4) -> dict[str, Tensor]:
    return {"text": torch.randint(20, (batch, 5)), "audio": torch.randn(batch, 7, 3)}


def masks() -> dict[str, Tensor]:
    return {"text": torch.arange(5) < torch.tensor([[5], [2], [3], [1]])}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model().save_pretrained(folder)
    CLCRProcessor({"audio": FeatureInput((0.0,) * 3, (1.0,) * 3)}).save_pretrained(folder)
    return folder


def test_auto_classes_know_clcr_once_it_is_registered_and_importing_multifuse_loads_no_transformers(
    saved: Path,
) -> None:
    code = (
        "import sys, multifuse; assert 'transformers' not in sys.modules; multifuse.register()\n"
        "from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor\n"
        "autos = AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor\n"
        "print([type(auto.from_pretrained(sys.argv[1])).__name__ for auto in autos])"
    )
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['CLCRConfig', 'CLCRModel', 'CLCRForPrediction', 'CLCRProcessor']"


def test_a_sequence_classifier_is_loaded_with_its_head(saved: Path) -> None:
    loaded = AutoModelForSequenceClassification.from_pretrained(saved)
    given = inputs()
    assert torch.equal(loaded(given).logits, CLCRForPrediction.from_pretrained(saved)(given).logits)


def implementations(network: PreTrainedModel) -> dict[str, str]:
    encoders = network.clcr.hierarchy.modalities  # type: ignore[union-attr]
    hierarchy: Any = network.clcr.hierarchy  # type: ignore[union-attr]
    return {name: hierarchy.encoder(name).model.config._attn_implementation for name in encoders if name != "audio"}


def test_an_attention_implementation_reaches_the_encoders(saved: Path) -> None:
    load = CLCRForPrediction.from_pretrained
    assert implementations(load(saved)) == {"text": "sdpa"}
    eager, given = load(saved, attn_implementation="eager"), inputs()
    assert implementations(eager) == {"text": "eager"}
    assert implementations(load(saved, attn_implementation={"text": "eager"})) == {"text": "eager"}
    assert "eager" not in json.dumps(eager.config.to_dict())
    torch.testing.assert_close(eager(given).logits, load(saved, attn_implementation="sdpa")(given).logits)
    eager.set_attn_implementation("sdpa")
    assert implementations(eager) == {"text": "sdpa"}


def test_an_encoder_without_the_attention_that_is_asked_of_all_keeps_its_own() -> None:
    resnet = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1]).to_dict()
    modalities = {"text": text(), "vision": {"encoder": "image", "config": resnet}}
    build = CLCRForPrediction._from_config
    assert implementations(build(config(modalities=modalities), attn_implementation="sdpa"))["text"] == "sdpa"
    with pytest.raises(ValueError, match="ResNetModel does not support"):
        build(config(modalities=modalities), attn_implementation={"vision": "sdpa"})
    with pytest.raises(ValueError, match=r"attn_implementation has modalities \['smell'\]"):
        build(config(modalities=modalities), attn_implementation={"smell": "sdpa"})
    with pytest.raises(ValueError, match="not code from the Hub, got 'organisation/kernel'"):
        config(attn_implementation={"text": "organisation/kernel"})


def test_outputs_are_a_tuple_without_return_dict(saved: Path) -> None:
    network, given, labels = model(), inputs(), torch.ones(4)
    output = network(given, labels=labels)
    values = network(given, labels=labels, return_dict=False)
    assert isinstance(values, tuple)
    assert torch.equal(values[0], output.loss)
    assert torch.equal(values[1], output.logits)
    assert isinstance(CLCRForPrediction.from_pretrained(saved, return_dict=False)(given), tuple)
    assert isinstance(model(LateFusionForPrediction)(given, return_dict=False), tuple)


@pytest.mark.parametrize("options", [{}, {"use_hierarchy": False}, {"shuffle_levels": True}])
def test_hidden_states_are_the_tokens_that_the_exchange_of_each_level_reads(options: dict[str, Any]) -> None:
    network, given, mask = model(**options), inputs(), masks()
    assert network(given, mask).hidden_states is None
    output = network.clcr(given, mask, output_hidden_states=True)
    assert len(output.hidden_states) == network.config.active_levels
    for exchange, tokens, level in zip(network.clcr.exchanges, output.hidden_states, output.levels, strict=True):
        assert tokens["text"].shape == (4, 5, 16)
        torch.testing.assert_close(exchange(tokens, mask).shared_code["audio"], level.shared_code["audio"])
    network.config.output_hidden_states = True
    assert torch.equal(network(given, mask).hidden_states[0]["audio"], output.hidden_states[0]["audio"])
    assert network(given, mask, output_hidden_states=False).hidden_states is None


def test_resized_embeddings_are_saved_and_loaded(tmp_path: Path) -> None:
    network, given = model(), inputs()
    before, entry = network(given).logits, network.config.modalities["text"]
    embedding = network.resize_token_embeddings(23, mean_resizing=False)
    assert embedding is network.get_input_embeddings()
    assert embedding.weight.shape == (23, 16)
    assert torch.equal(network(given).logits, before)
    assert entry["config"]["vocab_size"] == 20, "the entry may belong to another config"
    network.save_pretrained(tmp_path)
    loaded = CLCRForPrediction.from_pretrained(tmp_path)
    assert loaded.config.modalities["text"]["config"]["vocab_size"] == 23
    given["text"][0] = 22
    assert torch.equal(loaded(given).logits, network(given).logits)


def test_the_embeddings_of_several_text_encoders_are_named_by_modality() -> None:
    network = model(modalities={"title": text(), "body": text(), "audio": AUDIO})
    assert network.get_input_embeddings() is None
    with pytest.raises(ValueError, match=r"one of the text encoders \['title', 'body'\], got None"):
        network.resize_token_embeddings(23)
    network.resize_token_embeddings(23, modality="body", mean_resizing=False)
    sizes = {
        name: entry["config"]["vocab_size"] for name, entry in network.config.modalities.items() if "config" in entry
    }
    assert sizes == {"title": 20, "body": 23}
    with pytest.raises(ValueError, match=r"one of the text encoders \[\], got None"):
        model(modalities={"audio": AUDIO}).resize_token_embeddings(23)
    assert model(TextBaselineForPrediction).resize_token_embeddings(23, mean_resizing=False).num_embeddings == 23


def test_a_config_object_of_transformers_is_kept_as_a_dict(tmp_path: Path) -> None:
    ours = config(modalities={"text": {"encoder": "text", "config": BertConfig(**BERT)}})
    assert ours.modalities is not None
    assert ours.modalities["text"]["config"]["hidden_size"] == 16
    ours.save_pretrained(tmp_path)
    loaded = CLCRConfig.from_pretrained(tmp_path).modalities
    assert loaded == json.loads(json.dumps(ours.modalities))
    assert implementations(CLCRForPrediction(ours)) == {"text": "sdpa"}


@pytest.mark.parametrize("kind", [CLCRForPrediction, LateFusionForPrediction])
def test_flat_arguments_say_the_same_as_nested_ones(kind: Any) -> None:
    network, given, mask = model(kind), inputs(), {**masks(), "audio": torch.arange(7).expand(4, 7) < 6}
    expected = network(given, mask, labels=torch.ones(4))
    common = {"audio": given["audio"], "audio_mask": mask["audio"].long(), "labels": torch.ones(4)}
    ids, attention = given["text"], mask["text"].long()
    for flat in (
        {"text": ids, "text_mask": attention},
        {"text_input_ids": ids, "text_attention_mask": attention},
        {"input_ids": ids, "attention_mask": attention, "token_type_ids": torch.zeros_like(ids)},
        {"inputs": {"text": ids}, "mask": {"text": attention}},
    ):
        output = network(**common, **flat)
        assert torch.equal(output.logits, expected.logits)
        assert torch.equal(output.loss, expected.loss)
    alone = network(audio=given["audio"], text=None)
    assert torch.equal(alone.logits, network({"audio": given["audio"]}).logits)


def test_names_with_two_meanings_are_no_flat_arguments() -> None:
    audio, words = {"encoder": "temporal_conv"}, {"encoder": "text"}
    names = flat_names({"a": audio, "a_mask": audio, "mask": audio, "one": words, "two": words}, ("inputs", "mask"))
    assert list(names) == [
        *("a", "a_mask_mask", "mask_mask", "one", "one_mask", "two", "two_mask"),
        *("one_input_ids", "one_attention_mask", "one_token_type_ids"),
        *("two_input_ids", "two_attention_mask", "two_token_type_ids"),
    ]


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"audoi": 1}, "forward has no argument 'audoi'; did you mean 'audio'?"),
        ({"zzz": 1}, "forward has no argument 'zzz'; flat arguments are ['text', "),
        ({"inputs": {"audio": 1}, "audio": 1}, "'audio' must be given once, but audio gives it again"),
        ({"text": 1, "input_ids": 1}, "'text' must be given once, but input_ids gives it again"),
        ({"text_input_ids": 1, "input_ids": 1}, "'input_ids' must be given once, but input_ids gives it again"),
    ],
)
def test_a_wrong_flat_argument_is_named_in_one_line(flat: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        model()(**flat)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_signature_of_a_model_names_its_own_flat_arguments() -> None:
    network, other = model(), model(CLCRModel, modalities={"pose": AUDIO})
    names = {"inputs", "mask", "labels", "text_input_ids", "input_ids", "audio", "audio_mask"}
    for copy in (
        network,
        deepcopy(network),
        pickle.loads(pickle.dumps(network)),
        network._replicate_for_data_parallel(),
    ):
        assert names < set(inspect.signature(copy.forward).parameters)
        assert copy.forward.__self__ is copy
    assert {"pose", "pose_mask"} < set(inspect.signature(other.forward).parameters)
    assert "audio" not in inspect.signature(other.forward).parameters


def columns(count: int = 8) -> Dataset:
    given = inputs(count)
    return Dataset.from_dict(
        {
            "input_ids": given["text"].tolist(),
            "attention_mask": torch.ones_like(given["text"]).tolist(),
            "audio": given["audio"].tolist(),
            "label": torch.linspace(-1, 1, count).tolist(),
            "speaker": [f"speaker {index}" for index in range(count)],
        }
    )


def trained(folder: Path, data: Dataset, **options: Any) -> tuple[dict[str, Tensor], Trainer]:
    torch.manual_seed(0)
    network = model(lambda_intra=0.0, lambda_inter=0.0)
    # Where files go, and what is printed; all else is the default.
    quiet: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
    arguments = TrainingArguments(
        str(folder), max_steps=2, learning_rate=1e-2, dataloader_pin_memory=False, **quiet, **options
    )
    trainer = Trainer(network, arguments, train_dataset=data, eval_dataset=data)
    trainer.train()
    return network.state_dict(), trainer


def test_trainer_trains_on_flat_columns_drops_others_and_checkpoints_gradients(tmp_path: Path) -> None:
    data, before = columns(), model().state_dict()
    plain, trainer = trained(tmp_path, data)
    kept = set(trainer.get_train_dataloader().dataset.column_names)  # type: ignore[attr-defined]
    assert kept == {"input_ids", "attention_mask", "audio", "label"}
    assert trainer.predict(data).predictions[0].shape == (8, 1)
    assert trainer.predict(data).label_ids.shape == (8,)
    checkpointed, other = trained(tmp_path, data, **{f"{CHECKPOINTING}_checkpointing": True})
    assert getattr(other.model, f"is_{CHECKPOINTING}_checkpointing")
    for name, weight in plain.items():
        torch.testing.assert_close(checkpointed[name], weight, msg=name)
    moved = [name for name, weight in plain.items() if not torch.equal(weight, before[name])]
    assert any("text" in name for name in moved)


def test_checkpoints_change_no_gradient_of_a_text_encoder() -> None:
    network, given = model().train(), inputs(8)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(network(given, labels=torch.ones(8)).loss, list(network.parameters())))

    plain = gradients()
    getattr(network, f"{CHECKPOINTING}_checkpointing_enable")()
    layers = [module for module in network.modules() if getattr(module, "gradient_checkpointing", False)]
    assert {"BertLayer", "TemporalConvLevels"} <= {type(layer).__name__ for layer in layers}
    for ours, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    "device_map",
    [
        {"": "disk"},
        {
            "clcr.hierarchy": "cpu",
            "clcr.modality_dropout": "cpu",
            "clcr.aggregation": "disk",
            "head": "disk",
            "clcr.exchanges.0": "disk",
            "clcr.exchanges.1.projector": "disk",
            "clcr.exchanges.1.budget": "cpu",
            **{f"clcr.exchanges.1.{part}": "disk" for part in ("query_key_value", "output", "dropout")},
        },
        "auto",
    ],
    ids=["disk", "parts", "auto"],
)
def test_a_model_on_the_disk_predicts_as_in_memory(saved: Path, tmp_path: Path, device_map: Any) -> None:
    limit: Any = {"cpu": 30_000} if device_map == "auto" else None
    network = CLCRForPrediction.from_pretrained(saved, device_map=device_map, max_memory=limit, offload_folder=tmp_path)
    assert "disk" in network.hf_device_map.values()
    given = inputs()
    expected = CLCRForPrediction.from_pretrained(saved)(given, masks()).logits
    for _ in range(2):  # the weights are gone after the first call
        torch.testing.assert_close(network(given, masks()).logits, expected)
    assert any(weight.is_meta for weight in network.parameters())


@pytest.mark.parametrize("kind", [CLCRForPrediction, ConcatenationForPrediction])
def test_geotorchs_frames_and_torchs_attention_predict_from_the_disk(kind: Any, tmp_path: Path) -> None:
    network, given = model(kind, parametrization="geotorch"), inputs()
    network.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path, device_map={"": "disk"}, offload_folder=tmp_path / "offload")
    torch.testing.assert_close(loaded(given).logits, network(given).logits)


def test_a_model_is_exported_with_flat_arguments() -> None:
    network, audio = model(LateFusionForPrediction, modalities={"audio": AUDIO}), inputs()["audio"]
    exported = torch.export.export(network, (), {"audio": audio})
    torch.testing.assert_close(exported.module()(audio=audio).logits, network({"audio": audio}).logits)
