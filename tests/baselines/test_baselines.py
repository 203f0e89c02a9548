"""What all fusion baselines have in common: masks, absent modalities, gradients, and the interface of CLCR."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from multifuse import CLCRConfig
from multifuse.baselines.cross_attention import CrossAttention
from multifuse.baselines.fusion import Fusion, FusionForPrediction
from multifuse.baselines.mult import CrossModalLayer
from multifuse.baselines.shared_private import SharedPrivateFusion
from multifuse.baselines.shared_private_terms import difference, reconstruction
from multifuse.recipes.jobs.models import CLIP_MODELS, model_class
from tests.sizes import SMALL_SIZES

NAMES = ("text", "keys", "audio")
LENGTHS = (4, 6, 5)
BATCH, DIM = 3, 8
MODELS: list[Any] = [model_class(name) for name in CLIP_MODELS if name != "clcr"]
FUSIONS: list[type[Fusion]] = [model.fusion_class for model in MODELS]
fusions = pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: fusion.__name__)
Masks = dict[str, Tensor | None]
LAST_REAL_TOKENS = st.lists(
    st.tuples(*(st.integers(0, length) for length in LENGTHS)), min_size=BATCH, max_size=BATCH
).map(lambda counts: {name: [sample[m] for sample in counts] for m, name in enumerate(NAMES)})
"""The number of real tokens of every modality and sample; 0 is a modality that the sample lacks."""


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(BATCH, length, DIM, generator=generator) for name, length in zip(NAMES, LENGTHS)}


def masks(counts: dict[str, list[int]]) -> Masks:
    return {name: torch.arange(length) < torch.tensor(counts[name])[:, None] for name, length in zip(NAMES, LENGTHS)}


def layer(fusion: type[Fusion], **options: Any) -> Fusion:
    torch.manual_seed(0)
    return fusion(DIM, NAMES, **{"num_labels": 2, "num_heads": 2, **options})


@fusions
@settings(max_examples=15)
@given(counts=LAST_REAL_TOKENS, training=st.booleans())
def test_padding_changes_no_output_and_no_gradient(
    fusion: type[Fusion], counts: dict[str, list[int]], training: bool
) -> None:
    module, tokens, mask = layer(fusion).train(training), batch(), masks(counts)
    results = []
    for noise in (9.0, float("nan")):
        module.zero_grad()
        noisy = {name: values.masked_fill(~mask[name].unsqueeze(-1), noise) for name, values in tokens.items()}  # type: ignore[operator, union-attr]
        output = module(noisy, mask)
        assert output.logits.shape == (BATCH, 2)
        sum([output.logits.square().sum(), *output.terms.values()]).backward()  # type: ignore[union-attr]
        results.append({"logits": output.logits, **output.terms, **gradients(module)})
    for name, expected in results[0].items():
        assert expected.isfinite().all(), name
        torch.testing.assert_close(results[1][name], expected, atol=1e-5, rtol=1e-4)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {f"grad {name}": p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@fusions
@settings(max_examples=15)
@given(counts=LAST_REAL_TOKENS)
def test_a_sample_is_predicted_as_if_it_were_alone_and_without_what_it_lacks(
    fusion: type[Fusion], counts: dict[str, list[int]]
) -> None:
    module, tokens, mask = layer(fusion).eval(), batch(), masks(counts)
    together = module(tokens, mask).logits
    for sample in range(BATCH):
        present = [name for name in NAMES if counts[name][sample]]
        if present:
            single = {name: tokens[name][sample : sample + 1, : counts[name][sample]] for name in present}
            torch.testing.assert_close(module(single).logits[0], together[sample], atol=1e-5, rtol=1e-4)


@fusions
@pytest.mark.parametrize("name", NAMES)
def test_every_modality_alone_decides_the_prediction(fusion: type[Fusion], name: str) -> None:
    tokens = batch()
    other = {name: torch.randn(BATCH, 4, DIM)}
    for module in (layer(fusion).eval(), fusion(DIM, [name], num_heads=2).eval()):
        assert not torch.allclose(module({name: tokens[name]}).logits, module(other).logits, atol=1e-3)


@fusions
def test_every_parameter_receives_a_gradient_and_evaluation_computes_no_regulariser(fusion: type[Fusion]) -> None:
    module = layer(fusion, dropout=0.1).train()
    output = module(batch())
    assert output.terms.keys() == module.term_weights.keys()
    sum([output.logits.square().sum(), *output.terms.values()]).backward()  # type: ignore[union-attr]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert not module.eval()(batch()).terms


@fusions
def test_dropout_acts_in_training_only(fusion: type[Fusion]) -> None:
    module, tokens = layer(fusion, dropout=0.5), batch()
    assert not torch.equal(module.train()(tokens).logits, module(tokens).logits)
    assert torch.equal(module.eval()(tokens).logits, module(tokens).logits)


@pytest.mark.parametrize("fusion", [f for f in FUSIONS if f.__name__ not in ("LateFusion", "LowRankFusion")])
def test_heads_that_do_not_divide_the_width_are_refused(fusion: type[Fusion]) -> None:
    with pytest.raises(ValueError, match="num_heads must divide the width 8, got 3"):
        fusion(DIM, NAMES[:2], num_heads=3)


def config(**options: Any) -> CLCRConfig:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 3} for name in ("text", "audio")}
    return CLCRConfig(modalities=modalities, dropout=0.0, **{**SMALL_SIZES, **options})


@pytest.mark.parametrize("model", MODELS)
def test_baselines_have_the_interface_of_clcr_and_load_after_saving(
    model: type[FusionForPrediction], tmp_path: Path
) -> None:
    network = model(config()).eval()
    inputs, labels = {"text": torch.randn(4, 5, 3), "audio": None}, torch.randn(4)
    output = network(inputs, {"text": torch.ones(4, 5, dtype=torch.bool)}, labels=labels)
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - labels).abs().mean())
    network.save_pretrained(tmp_path)
    assert torch.equal(model.from_pretrained(tmp_path).eval()(inputs).logits, output.logits)


@pytest.mark.parametrize("model", MODELS)
def test_the_training_loss_is_the_tasks_and_the_weighted_regularisers(model: type[FusionForPrediction]) -> None:
    network = model(config()).train()
    inputs = {name: torch.randn(4, 5, 3) for name in ("text", "audio")}
    output = network(inputs, labels=torch.randn(4))
    weights = network.fusion.term_weights
    assert output.terms.keys() == {"task", *weights}
    expected = output.terms["task"] + sum(weight * output.terms[name] for name, weight in weights.items())
    torch.testing.assert_close(output.loss, expected)
    assert network.eval()(inputs, labels=torch.randn(4)).terms.keys() == {"task"}


@pytest.mark.parametrize("model", MODELS)
def test_baselines_drop_modalities_and_name_features_that_are_not_finite_as_the_config_says(
    model: type[FusionForPrediction],
) -> None:
    inputs = {name: torch.randn(4, 5, 3) for name in ("text", "audio")}
    network = model(config(modality_dropout={"audio": 1.0}, debug=True)).train()
    torch.testing.assert_close(network(inputs).logits, network({**inputs, "audio": None}).logits)
    with pytest.raises(ValueError, match=r"inputs\['audio'\] .*nan"):
        network({**inputs, "audio": inputs["audio"] * float("nan")})


@pytest.mark.parametrize("model", MODELS)
def test_no_two_weights_start_equal_and_a_checkpoint_may_lack_any_of_them(
    model: type[FusionForPrediction], tmp_path: Path
) -> None:
    network = model(config())
    matrices = [p for p in network.fusion.parameters() if p.ndim > 1]
    assert not any(a.shape == b.shape and torch.equal(a, b) for i, a in enumerate(matrices) for b in matrices[:i])
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("fusion.")}
    network.save_pretrained(tmp_path, state_dict=state)
    loaded = model.from_pretrained(tmp_path).fusion
    for name, parameter in loaded.named_parameters():
        assert parameter.isfinite().all(), name
        if parameter.ndim > 1 and parameter.numel() > 100:
            expected = network.fusion.get_parameter(name).std()
            torch.testing.assert_close(parameter.std(), expected, rtol=0.3, atol=0.0, msg=name)


@fusions
def test_wrong_sizes_tokens_and_masks_are_named(fusion: type[Fusion]) -> None:
    with pytest.raises(ValueError, match="num_labels must be an integer >= 1, got 0"):
        layer(fusion, num_labels=0)
    module, tokens = layer(fusion), batch()
    with pytest.raises(ValueError, match=r"tokens\['audio'\] must have shape \(batch, tokens, 8\), got \(3, 5, 7\)"):
        module({**tokens, "audio": tokens["audio"][..., :7]})
    with pytest.raises(ValueError, match=r"mask\['keys'\] must have shape \(3, 6\), got \(3, 5\)"):
        module(tokens, {"keys": torch.ones(3, 5, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"tokens\['keys'\] is torch.float64, but the weights are torch.float32"):
        module({**tokens, "keys": tokens["keys"].double()})
    with pytest.raises(ValueError, match=r"tokens\['keys'\] must be floating point, got torch.int64"):
        module({**tokens, "keys": tokens["keys"].long()})
    with pytest.raises(ValueError, match="smell"):
        module({**tokens, "smell": tokens["audio"]})
    torch.testing.assert_close(
        module.eval()({**tokens, "audio": None}).logits, module({"text": tokens["text"], "keys": tokens["keys"]}).logits
    )


@fusions
def test_a_printed_fusion_shows_every_size(fusion: type[Fusion]) -> None:
    shown = repr(layer(fusion, dropout=0.1))
    assert f"8, {NAMES}, num_labels=2, dropout=0.1, num_heads=2" in shown


@pytest.mark.parametrize("model", MODELS)
def test_inputs_that_are_no_mapping_are_named(model: type[FusionForPrediction]) -> None:
    network = model(config())
    for inputs, got in ((torch.ones(4, 5, 3), r"a tensor of shape \(4, 5, 3\)"), ([torch.ones(4, 5, 3)], "list")):
        with pytest.raises(ValueError, match=f"^inputs must be a mapping by modality, such as .*, got {got}$"):
            network(inputs)
    with pytest.raises(ValueError, match=r"^inputs has modalities \['smell'\]; this module knows \['text', 'audio'\]$"):
        network({"smell": torch.ones(4, 5, 3)})
    with pytest.raises(ValueError, match=r"modality 'text': inputs must be floating point, got torch.int64"):
        network({"text": torch.ones(4, 5, 3, dtype=torch.int64)})


@fusions
def test_it_matters_of_which_modality_a_token_is(fusion: type[Fusion]) -> None:
    module, text, keys = layer(fusion).eval(), torch.randn(BATCH, 4, DIM), torch.randn(BATCH, 4, DIM)
    given, swapped = module({"text": text, "keys": keys}).logits, module({"text": keys, "keys": text}).logits
    assert not torch.allclose(given, swapped, atol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_a_baseline_reads_the_last_level_and_has_the_dropout_and_heads_of_its_config(
    model: type[FusionForPrediction],
) -> None:
    options: dict[str, Any] = {"num_heads": 4, "dropout": 0.3}
    settings = config()
    for name, value in options.items():
        setattr(settings, name, value)
    network = model(settings).eval()
    assert (network.fusion.dropout, network.fusion.num_heads) == (0.3, 4)
    inputs = {name: torch.randn(4, 5, 3) for name in ("text", "audio")}
    first, last = network.hierarchy(inputs)
    torch.testing.assert_close(network(inputs).logits, network.fusion(last).logits)
    assert not torch.allclose(network(inputs).logits, network.fusion(first).logits, atol=1e-3)


def test_cross_attention_adds_what_a_modality_reads_of_the_others_and_not_of_itself() -> None:
    torch.manual_seed(0)
    fusion = CrossAttention(8, ("text", "keys", "audio")).eval()
    tokens = {name: torch.randn(2, length, 8) for name, length in (("text", 3), ("keys", 4), ("audio", 5))}
    others = torch.cat([tokens["text"], tokens["audio"]], dim=1)
    attention: Any = fusion.attentions["modality_keys"]
    attended = attention.attention(tokens["keys"], others, others)[0]
    torch.testing.assert_close(fusion._mixed("keys", tokens, {}), tokens["keys"] + attended)


def test_a_layer_of_mult_adds_attention_and_then_the_feed_forward_to_its_tokens() -> None:
    torch.manual_seed(0)
    crossing = CrossModalLayer(8, 2, 0.5).eval()
    tokens, source = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    nn.init.normal_(crossing.source_norm.bias)
    keys = crossing.source_norm(source)
    attended = tokens + crossing.attention.attention(crossing.token_norm(tokens), keys, keys)[0]
    torch.testing.assert_close(crossing(tokens, source, None), attended + crossing.feed_forward(attended))
    torch.testing.assert_close(crossing(tokens, None, None), tokens + crossing.feed_forward(tokens))


def test_the_terms_have_the_weights_of_misas_code() -> None:
    assert SharedPrivateFusion.term_weights == {"similarity": 1.0, "difference": 0.3, "reconstruction": 1.0}


def test_vectors_are_reconstructed_from_the_sum_of_both_parts() -> None:
    torch.manual_seed(0)
    fusion = SharedPrivateFusion(8, ("text", "keys"), num_heads=2).train()
    tokens = {name: torch.randn(5, 4, 8) for name in ("text", "keys")}
    means = fusion.means(tokens, {})
    sums = [
        fusion.shared(vectors) + private(vectors)
        for private, vectors in zip(fusion.private, means.values.unbind(1), strict=True)
    ]
    decoded = torch.stack([decoder(values) for decoder, values in zip(fusion.decoders, sums, strict=True)], dim=1)
    expected = reconstruction(decoded, means.values, means.present)
    torch.testing.assert_close(fusion(tokens).terms["reconstruction"], expected)


def test_the_difference_has_no_gradient_through_the_norms() -> None:
    """With fixed norms it is of degree 2 in the shared vectors, whose scale it would not depend on otherwise."""
    torch.manual_seed(0)
    shared, private = (torch.rand(6, 1, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = difference(shared, private, torch.ones(6, 1, dtype=torch.bool))
    (grad,) = torch.autograd.grad(value, shared)
    assert (grad * shared.detach()).sum().item() == pytest.approx(2 * value.item())
