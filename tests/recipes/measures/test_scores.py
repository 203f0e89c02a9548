"""Scores on changed batches: they are those of the model's predictions, and bases are computed only once."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.layers import stiefel
from multifuse.layers.frames import shared_and_private_frames
from multifuse.recipes.measures.scores import SENTIMENT, Masks, measured
from multifuse.recipes.measures.sentiment import sentiment_measures
from tests.sizes import SMALL_SIZES


def unchanged(inputs: Mapping[str, Any], mask: Masks) -> tuple[Mapping[str, Any], Masks]:
    return inputs, mask


def test_scores_match_the_models_predictions_and_bases_are_computed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def counted(shared: torch.Tensor, private: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        return shared_and_private_frames(shared, private)

    modalities = {name: {"encoder": "temporal_conv", "input_size": 3} for name in ("text", "audio")}
    model = CLCRForPrediction(CLCRConfig(modalities=modalities, **SMALL_SIZES)).eval()
    samples: list[dict[str, Any]] = [
        {
            "inputs": {name: torch.randn(4, 5, 3) for name in modalities},
            "mask": dict.fromkeys(modalities),
            "labels": torch.randn(4),
        }
        for _ in range(3)
    ]
    with torch.no_grad():
        predictions = torch.cat([model(batch["inputs"]).logits[:, 0] for batch in samples])
    labels = torch.cat([batch["labels"] for batch in samples])
    monkeypatch.setattr(stiefel, "shared_and_private_frames", counted)
    batches: DataLoader[Any] = DataLoader(samples, batch_size=None)  # type: ignore[arg-type]
    scores = measured(model, batches, unchanged, SENTIMENT)
    assert scores == sentiment_measures(predictions.numpy(), labels.numpy())
    assert len(calls) == 1


def test_a_model_that_is_being_trained_is_scored_without_dropout() -> None:
    modalities = {"audio": {"encoder": "temporal_conv", "input_size": 3}}
    model = CLCRForPrediction(CLCRConfig(modalities=modalities, dropout=0.5, **SMALL_SIZES))
    batch = {"inputs": {"audio": torch.randn(6, 5, 3)}, "mask": {"audio": None}, "labels": torch.randn(6)}
    batches: DataLoader[Any] = DataLoader([batch], batch_size=None)  # type: ignore[arg-type]
    expected = measured(model.eval(), batches, unchanged, SENTIMENT)
    assert measured(model.train(), batches, unchanged, SENTIMENT) == expected
