"""CLCR: shapes, losses, ablations, missing modalities, saving and loading, and training."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, Trainer, TrainingArguments

from multifuse import CLCRConfig, CLCRForPrediction, CLCRModel
from multifuse.baselines.text import TextBaselineForPrediction
from tests.sizes import SMALL_SIZES

BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}


def config(**options: Any) -> CLCRConfig:
    # Not in alphabetical order, which is how transformers writes the keys to JSON.
    modalities = {
        "text": {"encoder": "text", "config": dict(BERT)},
        "audio": {"encoder": "temporal_conv", "input_size": 5},
        "keys": {"encoder": "temporal_conv", "input_size": 3},
    }
    return CLCRConfig(**{"modalities": modalities, **SMALL_SIZES, "num_levels": 3, **options})


def model(**options: Any) -> CLCRForPrediction:
    torch.manual_seed(0)
    network: CLCRForPrediction = CLCRForPrediction(config(**options)).eval()
    return network


def inputs(batch: int = 4) -> tuple[dict[str, Any], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    features = {
        "text": torch.randint(0, 60, (batch, 6), generator=generator),
        "audio": torch.randn(batch, 9, 5, generator=generator),
        "keys": torch.randn(batch, 1, 3, generator=generator),
    }
    lengths = torch.randint(1, 7, (batch, 1), generator=generator)
    return features, {"text": torch.arange(6) < lengths}


def test_outputs_have_the_documented_shapes() -> None:
    features, mask = inputs()
    output = model()(features, mask, labels=torch.randn(4))
    assert output.logits.shape == (4, 1)
    assert output.level_weights.shape == (4, 3)
    assert output.modality_weights.shape == (4, 3)
    assert output.private_gates.shape == (4, 3)
    assert [set(level) for level in output.activations] == [{"text", "audio", "keys"}] * 3
    assert CLCRModel(config())(features, mask).fused.shape == (4, 32)


def test_the_loss_is_the_weighted_sum_of_its_named_terms() -> None:
    features, mask = inputs(24)
    network = model(lambda_intra=0.3, lambda_inter=0.7, dropout=0.0).train()
    output = network(features, mask, labels=torch.randn(24))
    terms = output.terms
    assert terms["inter_mixing"] > 0
    expected = terms["task"] + 0.3 * terms["intra_total"] + 0.7 * terms["inter_total"]
    assert torch.allclose(output.loss, expected)
    parts = terms["inter_private_private"] + terms["inter_shared_private"] + terms["inter_mixing"]
    assert torch.allclose(terms["inter_total"], parts)


def test_every_parameter_receives_a_gradient_in_training() -> None:
    features, mask = inputs(60)
    network = model(debias=False).train()
    network(features, mask, labels=torch.randn(60)).loss.backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("problem", "num_labels", "labels", "expected"),
    [
        ("regression", 1, torch.randn(4), lambda o, y: (o[:, 0] - y).abs().mean()),
        ("single_label_classification", 3, torch.tensor([0, 2, -100, 1]), nn.functional.cross_entropy),
        ("multi_label_classification", 2, torch.ones(4, 2), nn.functional.binary_cross_entropy_with_logits),
    ],
)
def test_each_problem_type_has_its_loss(problem: str, num_labels: int, labels: Tensor, expected: Any) -> None:
    features, mask = inputs()
    output = model(problem_type=problem, num_labels=num_labels)(features, mask, labels=labels)
    assert torch.allclose(output.loss, expected(output.logits, labels))


def test_the_squared_and_the_smooth_absolute_error_are_options() -> None:
    features, mask = inputs()
    labels = torch.randn(4)
    output = model(regression_loss="mse")(features, mask, labels=labels)
    assert torch.allclose(output.loss, (output.logits[:, 0] - labels).square().mean())
    output = model(regression_loss="smooth_l1")(features, mask, labels=labels)
    error = (output.logits[:, 0] - labels).abs()
    assert torch.allclose(output.loss, torch.where(error < 1, error.square() / 2, error - 0.5).mean())


def test_a_missing_modality_equals_one_left_out() -> None:
    features, mask = inputs()
    network = model()
    without = network({"text": features["text"], "keys": features["keys"]}, mask)
    as_none = network({**features, "audio": None}, mask)
    masked = network(features, {**mask, "audio": torch.zeros(4, 9, dtype=torch.bool)})
    for output in (as_none, masked):
        assert torch.allclose(output.logits, without.logits, atol=1e-5)
        assert not output.modality_weights[:, 1].any()
    partly_masked = network(features, {**mask, "audio": torch.tensor([[True], [False], [True], [False]]).expand(4, 9)})
    assert torch.allclose(partly_masked.logits[1::2], without.logits[1::2], atol=1e-5)
    assert torch.allclose(partly_masked.logits[::2], network(features, mask).logits[::2], atol=1e-5)


def test_samples_do_not_affect_each_other() -> None:
    features, mask = inputs()
    network = model()
    single = network({n: v[1:2] for n, v in features.items()}, {n: v[1:2] for n, v in mask.items()})
    assert torch.allclose(single.logits, network(features, mask).logits[1:2], atol=1e-5)


@pytest.mark.parametrize("kind", [CLCRForPrediction, TextBaselineForPrediction])
def test_a_text_mapping_brings_its_own_mask(kind: Any) -> None:
    features, mask = inputs()
    mapping = {"input_ids": features["text"], "attention_mask": mask["text"].long()}
    network = kind(config()).eval()
    assert torch.equal(network({**features, "text": mapping}).logits, network(features, mask).logits)


def test_without_the_hierarchy_only_the_last_level_is_used() -> None:
    features, mask = inputs()
    output = model(use_hierarchy=False).train()(features, mask, labels=torch.randn(4))
    assert torch.equal(output.level_weights, torch.ones(4, 1))
    assert len(output.activations) == 1
    assert float(output.terms["inter_total"]) == 0


def test_by_default_nothing_is_exchanged_before_training_and_the_exchange_learns() -> None:
    features, mask = inputs()
    default = CLCRConfig(modalities=config().modalities).init_exchange
    network, closed = model(init_exchange=default), model(init_exchange=default, use_intra_ced=False)
    torch.testing.assert_close(network(features, mask).logits, closed(features, mask).logits)
    network.train()(features, mask, labels=torch.randn(4)).loss.backward()
    weights = dict(network.named_parameters())
    assert all(weights[f"clcr.exchanges.{level}.output.weight"].grad.any() for level in range(3))


def test_without_intra_ced_no_token_participates() -> None:
    features, mask = inputs()
    output = model(use_intra_ced=False)(features, mask)
    assert not any(alpha.any() for level in output.activations for alpha in level.values())


def test_without_inter_cad_all_weights_are_uniform() -> None:
    features, mask = inputs()
    output = model(use_inter_cad=False)(features, mask)
    assert torch.allclose(output.level_weights, torch.full((4, 3), 1 / 3))
    assert torch.allclose(output.modality_weights, torch.full((4, 3), 1 / 3))
    assert torch.equal(output.private_gates, torch.ones(4, 3))


def test_full_mix_shuffles_the_levels_between_modalities() -> None:
    features, mask = inputs()
    plain, mixed = model(use_intra_ced=False), model(use_intra_ced=False, shuffle_levels=True)
    mixed.load_state_dict(plain.state_dict())
    hierarchy = plain.clcr.hierarchy(features, mask)
    levels = mixed.clcr(features, mask).levels
    for level, exchange in enumerate(mixed.clcr.exchanges):
        for index, name in enumerate(("text", "audio", "keys")):
            expected = hierarchy[(level + index) % 3][name] @ exchange.projector.shared_basis  # type: ignore[union-attr]
            torch.testing.assert_close(levels[level].shared_code[name], expected)


def test_modality_dropout_drops_modalities_only_in_training() -> None:
    features, mask = inputs()
    network = model(modality_dropout={"audio": 1.0}, dropout=0.0)
    complete, without = network(features, mask), network({**features, "audio": None}, mask)
    assert not torch.allclose(complete.logits, without.logits)
    network.clcr.modality_dropout.train()  # not the whole network: the text encoder has dropout
    torch.testing.assert_close(network(features, mask).logits, without.logits)
    with pytest.raises(ValueError, match=r"modality_dropout\['audio'\] must be in \[0.0, 1.0\], got 2"):
        config(modality_dropout={"audio": 2})


@pytest.mark.parametrize("lambdas", [(0.0, 0.1), (0.1, 0.0), (0.0, 0.0)])
def test_a_regulariser_with_zero_weight_is_not_computed(lambdas: tuple[float, float]) -> None:
    features, mask = inputs()
    terms = model(lambda_intra=lambdas[0], lambda_inter=lambdas[1]).train()(features, mask, labels=torch.ones(4)).terms
    assert ("intra_total" in terms, "inter_total" in terms) == (lambdas[0] > 0, lambdas[1] > 0)


def test_a_longer_fused_vector_does_not_enlarge_the_logits() -> None:
    """Otherwise one-hot weights and open gates, which lengthen it, would be rewarded for that alone."""
    network = model()
    head, fused = network.head, torch.randn(4, 2 * network.config.hidden_size)
    torch.testing.assert_close(head(3 * fused), head(fused), atol=1e-4, rtol=1e-4)


def test_saved_models_load_with_equal_outputs_in_the_same_order(tmp_path: Path) -> None:
    features, mask = inputs()
    network = model()
    network.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = CLCRForPrediction.from_pretrained(tmp_path)
    ours, expected = loaded(features, mask), network(features, mask)
    assert torch.equal(ours.logits, expected.logits)
    assert torch.equal(ours.modality_weights, expected.modality_weights)
    assert list(AutoConfig.from_pretrained(tmp_path).modalities) == ["text", "audio", "keys"]
    assert torch.equal(AutoModel.from_pretrained(tmp_path)(features, mask).fused, network.clcr(features, mask).fused)


def test_a_mismatched_head_is_reinitialised_and_everything_else_loaded(tmp_path: Path) -> None:
    network = model()
    network.save_pretrained(tmp_path)
    loaded = CLCRForPrediction.from_pretrained(tmp_path, num_labels=4, ignore_mismatched_sizes=True)
    assert loaded.head[4].weight.shape == (4, 16)
    assert loaded.head[4].weight.isfinite().all()
    ours = loaded.state_dict()
    unchanged = [name for name, value in network.state_dict().items() if not name.startswith("head.4")]
    assert all(torch.equal(ours[name], network.state_dict()[name]) for name in unchanged)


def test_pretrained_text_weights_are_loaded_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(5)
    pretrained = BertModel(BertConfig(**{k: v for k, v in BERT.items() if k != "model_type"}))
    pretrained.save_pretrained(tmp_path)
    network = CLCRModel(config(modalities={"text": CLCRConfig.text_modality(str(tmp_path))}))
    network.load_text_encoder("text", str(tmp_path))
    ours = network.hierarchy.encoder("text").get_submodule("model").state_dict()
    expected = {name: value for name, value in pretrained.state_dict().items() if not name.startswith("pooler")}
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_deepcopy_and_compile_keep_the_outputs() -> None:
    features, mask = inputs()
    network = model()
    expected = network(features, mask).logits
    assert torch.equal(copy.deepcopy(network)(features, mask).logits, expected)
    compiled = torch.compile(network.clcr.aggregation, fullgraph=True, backend="aot_eager")
    network.clcr.aggregation = compiled  # type: ignore[assignment]
    with torch.no_grad():
        assert torch.allclose(network(features, mask).logits, expected, atol=1e-5)


def test_the_plain_trainer_trains_the_model(tmp_path: Path) -> None:
    features, mask = inputs(8)
    labels = torch.randn(8)
    data = [
        {"inputs": {n: v[i] for n, v in features.items()}, "mask": {"text": mask["text"][i]}, "labels": labels[i]}
        for i in range(8)
    ]

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        stacked = {
            field: {name: torch.stack([row[field][name] for row in rows]) for name in rows[0][field]}
            for field in ("inputs", "mask")
        }
        return {**stacked, "labels": torch.stack([row["labels"] for row in rows])}

    arguments = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        max_steps=3,
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        learning_rate=1e-2,
    )
    network = model()
    before = copy.deepcopy(network.state_dict())
    Trainer(network, arguments, train_dataset=data, data_collator=collate).train()  # type: ignore[arg-type]
    moved = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("clcr.exchanges.0.projector") for name in moved)


def test_the_text_baseline_is_a_linear_head_on_the_mean_of_the_last_layer() -> None:
    features, mask = inputs()
    torch.manual_seed(0)
    baseline = TextBaselineForPrediction(config()).eval()
    encoder = baseline.encoder.model
    hidden = encoder(features["text"], attention_mask=mask["text"].long()).last_hidden_state
    real = mask["text"].unsqueeze(-1)
    expected = baseline.head((hidden * real).sum(1) / real.sum(1))
    assert torch.allclose(baseline(features, mask).logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": {"text": {"encoder": "cnn"}}}, r"modalities\['text'\] must be a dict whose 'encoder'"),
        ({"modalities": {"a": {"encoder": "temporal_conv"}}}, r"\['input_size'\] must be an integer >= 1, got None"),
        ({"modalities": {"a": {"encoder": "text"}}}, r"modalities\['a'\]\['config'\] must be"),
        ({"modalities": {"not a name": {"encoder": "temporal_conv", "input_size": 2}}}, "identifiers"),
        ({"num_heads": 3}, "num_heads must divide shared_rank=8, got 3"),
        ({"shared_rank": 14}, r"must not exceed hidden_size, got 14 \+ 4 > 16"),
        ({"dropout": 1.5}, r"dropout must be in \[0.0, 1.0\], got 1.5"),
        ({"positions": "rotary"}, "positions must be one of .* got 'rotary'"),
        ({"regression_loss": "huber"}, "regression_loss must be one of .* got 'huber'"),
        ({"init_participation": 1.0}, "init_participation must be in"),
        ({"init_exchange": "zero"}, "init_exchange must be one of .* got 'zero'"),
    ],
)
def test_bad_configs_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_bad_inputs_are_named() -> None:
    features, mask = inputs()
    with pytest.raises(ValueError, match=r"config.modalities must name at least one modality"):
        CLCRModel(CLCRConfig())
    with pytest.raises(ValueError, match=r"labels must have shape \(4, 1\) for regression, got torch.float32 \(3,\)"):
        model()(features, mask, labels=torch.randn(3))
    with pytest.raises(ValueError, match="inputs has modalities"):
        model()({"smell": features["audio"]})
    with pytest.raises(ValueError, match="labels must be class indices"):
        model(problem_type="single_label_classification", num_labels=3)(features, mask, labels=torch.randn(4))
    with pytest.raises(ValueError, match="modality 'audio' has a TemporalConvLevels, not a text encoder"):
        model().load_text_encoder("audio", "anything")
