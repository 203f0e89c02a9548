"""The text baseline: it reads the text alone, and says what is wrong with it."""

from typing import Any

import pytest
import torch

from multifuse import CLCRConfig
from multifuse.baselines.text import TextBaselineForPrediction
from tests.sizes import SMALL_SIZES

IDS = torch.tensor([[5, 6, 7], [8, 9, 0]])


@pytest.fixture(scope="module")
def model() -> TextBaselineForPrediction:
    torch.manual_seed(0)
    encoder = {"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2}
    encoder |= {"num_attention_heads": 2, "intermediate_size": 8}
    modalities: dict[str, Any] = {
        "text": {"encoder": "text", "config": encoder},
        "audio": {"encoder": "temporal_conv", "input_size": 3},
    }
    network: TextBaselineForPrediction = TextBaselineForPrediction(CLCRConfig(modalities=modalities, **SMALL_SIZES))
    network.eval()
    return network


def test_other_modalities_change_nothing(model: TextBaselineForPrediction) -> None:
    expected = model({"text": IDS}).logits
    assert torch.equal(
        model({"text": IDS, "audio": torch.randn(2, 4, 3)}, {"audio": torch.ones(2, 4)}).logits, expected
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"audio": torch.ones(2, 4, 3)}, r"^inputs must hold 'text', which this model reads, got \['audio'\]$"),
        ({"text": None}, r"^inputs must hold 'text', which this model reads, got \[\]$"),
        (IDS, r"^inputs must be a mapping by modality, .* got a tensor of shape \(2, 3\)$"),
        ({"text": IDS.float()}, "^modality 'text': input_ids must be int32 or int64, got torch.float32$"),
        ({"text": IDS[0]}, r"^modality 'text': input_ids must have shape \(batch, tokens\), got \(3,\)$"),
        (
            {"text": torch.where(IDS == 9, 10, IDS)},
            "^modality 'text': input_ids must be from 0 to 9, .* vocab_size is 10, got 10 at sample 1, token 1$",
        ),
    ],
)
def test_a_text_that_cannot_be_read_is_named(model: TextBaselineForPrediction, inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        model(inputs)
    assert "\n" not in str(caught.value)
