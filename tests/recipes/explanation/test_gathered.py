"""What is gathered in a pass: it is what the model computes, with and without modalities, by sample and by segment."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse.recipes.explanation.gathered import explained
from multifuse.recipes.explanation.shown import chosen, segments_text
from multifuse.recipes.measures.scores import CLASSES, SENTIMENT
from tests.recipes.explanation.explanations import ABOUT, batches, explanation, model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lacking": True},
        {"modalities": 1},
        {"num_levels": 1},
        {"use_inter_cad": False},
        {"segments": 4, "classes": 3, "lacking": True},
    ],
)
def test_weights_and_streams_are_those_that_the_model_predicts_from(options: dict[str, Any]) -> None:
    network = model(**{name: value for name, value in options.items() if name != "lacking"})
    data = batches(network, lacking="lacking" in options)
    scoring: Any = CLASSES if "classes" in options else SENTIMENT
    result = explained(network, data, scoring, ABOUT, [""] * 12).aggregates
    with torch.no_grad():
        outputs = [network(batch["inputs"], batch["mask"]) for batch in data]
        encoded = [network.clcr(batch["inputs"], batch["mask"], segments=network.segments) for batch in data]
        values = network.clcr.aggregation.value(torch.from_numpy(result.shared)).numpy()
    for name in ("level_weights", "modality_weights", "private_gates"):
        expected = torch.cat([output[name].flatten(0, -2) for output in outputs])
        np.testing.assert_array_equal(getattr(result, name), expected.numpy(), err_msg=name)
    for weights, streams, name in (
        (result.modality_weights, values, "shared"),
        (result.private_gates, result.private, "private"),
    ):
        expected = torch.cat([getattr(batch.aggregate, name).flatten(0, -2) for batch in encoded])
        found = np.einsum("um,umd->ud", weights, streams)
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-6, err_msg=name)


def test_alphas_are_the_models_at_real_tokens_and_0_without_another_modality() -> None:
    network = model()
    data = batches(network, samples=5, lacking=True)
    result = explained(network, data, SENTIMENT, ABOUT, list("abcde"))
    (batch,) = data
    with torch.no_grad():
        output = network(batch["inputs"], batch["mask"])
    for row in result.alpha_summaries:
        alpha = output.activations[row.level - 1][row.modality].clone()
        alpha[4] = 0  # it has the first modality only
        alpha = alpha[batch["mask"][row.modality]]
        assert row.tokens == len(alpha)
        assert row.mean_alpha == pytest.approx(float(alpha.mean()), rel=1e-6)
        assert row.active == pytest.approx(float((alpha > 0).float().mean()), rel=1e-6)
    for sample in result.shown:
        index = "abcde".index(sample.id)
        for level, alphas in enumerate(sample.alphas):
            for name, alpha in alphas.items():
                assert len(alpha) == int(batch["mask"][name][index].sum())
                full = output.activations[level][name][index][: len(alpha)].numpy()
                np.testing.assert_array_equal(alpha, np.zeros_like(full) if index == 4 else full)


def test_the_samples_with_the_lowest_middle_and_highest_prediction_are_shown() -> None:
    network = model()
    data = batches(network)
    with torch.no_grad():
        logits = torch.cat([network(batch["inputs"], batch["mask"]).logits[:, 0] for batch in data])
    order = logits.argsort().tolist()
    shown = explanation().shown
    assert [sample.id for sample in shown] == [f"sample {order[place]}" for place in (0, 5, 11)]
    assert [sample.rule for sample in shown] == [f"{rule} prediction" for rule in ("lowest", "middle", "highest")]
    assert shown[0].prediction == f"{float(logits.min()):+.2f}"


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_no_sample_is_chosen_twice_and_the_lowest_and_highest_always_are(scores: list[float]) -> None:
    indices = [index for index, _ in chosen(np.array(scores), "prediction")]
    assert len(set(indices)) == len(indices)
    assert scores[indices[0]] == min(scores)
    assert scores[indices[-1]] == max(scores)


def test_runs_of_segments_are_named_once() -> None:
    assert segments_text([1, 1, 0, -100, -100, 1], ["Bark", "Clock"]) == "Clock x 2, Bark, no label x 2, Clock"
    assert segments_text(1, ["Bark", "Clock"]) == "Clock"


def test_certainty_is_the_probability_of_the_predicted_class() -> None:
    network = model(classes=3)
    (batch,) = data = batches(network, samples=4)
    with torch.no_grad():
        probabilities = network(batch["inputs"], batch["mask"]).logits.softmax(-1).max(-1)
    least = explained(network, data, CLASSES, ABOUT, list("abcd")).shown[0]
    assert least.rule == "lowest certainty"
    assert least.id == "abcd"[int(probabilities.values.argmin())]
    name = network.config.id2label[int(probabilities.indices[probabilities.values.argmin()])]
    assert least.prediction == f"{name} ({float(probabilities.values.min()):.0%})"


def test_predictions_that_are_not_finite_are_refused_and_the_model_is_left_as_it_was() -> None:
    network = model()
    torch.nn.init.constant_(network.get_parameter("head.4.bias"), float("nan"))
    with pytest.raises(ValueError, match="predictions are not finite"):
        explained(network, batches(network), SENTIMENT, ABOUT, [""] * 12)
    assert not network.clcr.aggregation.shared_norm._forward_hooks
