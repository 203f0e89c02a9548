"""What the evidence measures inside CLCR: recall and probes on made-up streams, and the streams of a small model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.evidence.streams import Streams, participation, probes, recall, streams
from multifuse import CLCRConfig, CLCRForPrediction
from multifuse._internal.masks import masked_mean
from multifuse.recipes.data.features.planted import PlantedFeatures, planted
from multifuse.recipes.data.features.planted_settings import SETTINGS
from tests.sizes import SMALL_SIZES

SIZES = {"train": 96, "valid": 8, "test": 64}


@pytest.fixture(scope="module")
def drawn() -> PlantedFeatures:
    return planted(replace(SETTINGS["default"], sizes=SIZES))


def of_alpha(planted: PlantedFeatures, split: str = "test", lead: float = 1.0) -> Streams:
    """Returns streams in which alpha is ``lead`` at the tokens that carry a factor, and 0 elsewhere."""
    tokens = planted.truth[split].tokens
    real = {
        name: np.arange(values.shape[1]) < np.array(planted.splits[split][f"{name}_lengths"])[:, None]
        for name, values in tokens.items()
    }
    return Streams({}, ({name: lead * values for name, values in tokens.items()},), real)


def test_recall_is_one_where_alpha_is_positive_at_exactly_the_planted_tokens(drawn: PlantedFeatures) -> None:
    rows = recall(of_alpha(drawn, lead=0.5), drawn)
    assert [(row["level"], row["modality"]) for row in rows] == [(1, "text"), (1, "vision"), (1, "audio")]
    for row in rows:
        assert (row["recall"], row["active_others"], row["alpha"], row["alpha_others"]) == (1.0, 0.0, 0.5, 0.0)


def test_recall_is_the_share_of_planted_tokens_that_are_active(drawn: PlantedFeatures) -> None:
    found = of_alpha(drawn)
    tokens = drawn.truth["test"].tokens["vision"]
    alpha = tokens.astype(float)
    alpha[:32] = 1 - alpha[:32]  # active where nothing was planted, in half of the samples
    (row,) = recall(replace(found, alpha=({"vision": alpha},)), drawn)
    real = found.real["vision"]
    assert row["recall"] == pytest.approx(tokens[32:].sum() / tokens.sum(), abs=1e-4)
    assert row["active_others"] == pytest.approx((real & ~tokens)[:32].sum() / (real & ~tokens).sum(), abs=1e-4)


def test_a_modality_without_a_planted_token_has_no_recall() -> None:
    cues = planted(replace(SETTINGS["cues"], sizes=SIZES))  # audio has a factor of the whole clip only
    assert [row["modality"] for row in recall(of_alpha(cues), cues)] == ["text", "vision"]


def test_participation_counts_real_tokens_only() -> None:
    alpha = np.array([[0.5, 0.0, 9.0], [0.25, 0.25, 0.0]])
    real = np.array([[True, True, False], [True, True, True]])
    rows = participation(Streams({}, ({"text": np.zeros((2, 3))}, {"text": alpha}), {"text": real}))
    assert rows == [
        {"level": 1, "modality": "text", "participation": 0.0, "active": 0.0},
        {"level": 2, "modality": "text", "participation": 0.2, "active": 0.6},
    ]


def test_a_probe_finds_the_factor_that_a_stream_contains_and_no_other(drawn: PlantedFeatures) -> None:
    random = np.random.default_rng(0)
    column = [factor.name for factor in drawn.settings.factors].index("rhythm")

    def made_up(split: str) -> Streams:
        values = drawn.truth[split].values
        mixed = values[:, [column]] * random_map + 0.01 * random.normal(size=(len(values), 6))
        return Streams({"with": mixed, "without": random.normal(size=(len(values), 6))}, (), {})

    random_map = random.normal(size=(1, 6))
    rows = probes(made_up("train"), made_up("test"), drawn)
    r2 = {(row["stream"], row["factor"]): row["r2"] for row in rows}
    assert len(r2) == 2 * len(drawn.settings.factors)
    assert r2.pop(("with", "rhythm")) > 0.99
    assert max(r2.values()) < 0.2
    assert {row["factor"] for row in rows if row["shared"]} == {"emphasis", "rhythm"}


def test_streams_are_those_of_the_whole_split_whatever_the_batches() -> None:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 3} for name in ("text", "audio")}
    model = CLCRForPrediction(CLCRConfig(modalities=modalities, **SMALL_SIZES)).eval()
    lengths = {"text": torch.tensor([2, 3, 5]), "audio": torch.tensor([4, 1, 6])}

    def batch(rows: list[int]) -> dict[str, Any]:
        count = {name: int(values[rows].max()) for name, values in lengths.items()}
        masks = {name: torch.arange(count[name]) < lengths[name][rows, None] for name in lengths}
        inputs = {name: features[name][rows, : count[name]] * masks[name].unsqueeze(-1) for name in lengths}
        return {"inputs": inputs, "mask": masks}

    features = {name: torch.randn(3, int(values.max()), 3) for name, values in lengths.items()}
    whole = streams(model, _loader([batch([0, 1, 2])]))
    parts = streams(model, _loader([batch([0, 1]), batch([2])]))
    assert set(whole.means) == {
        *("shared, fused", "private, fused"),
        *("shared, text", "private, text", "shared, audio", "private, audio"),
    }
    assert (whole.means["shared, text"].shape, whole.means["private, audio"].shape) == ((3, 16), (3, 8))
    assert np.array_equal(parts.real["text"], np.arange(5) < lengths["text"].numpy()[:, None])
    for name, values in whole.means.items():
        np.testing.assert_allclose(parts.means[name], values, atol=1e-5)
    for ours, theirs in zip(parts.alpha, whole.alpha, strict=True):
        for name, values in theirs.items():
            np.testing.assert_allclose(ours[name], values, atol=1e-5)
    output = model.clcr(**batch([0, 1, 2]))
    mean = masked_mean(output.levels[1].shared_code["text"], output.mask["text"])
    np.testing.assert_allclose(whole.means["shared, text"][:, 8:], mean.detach().numpy(), atol=1e-5)


def _loader(batches: list[dict[str, Any]]) -> "DataLoader[Any]":
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
