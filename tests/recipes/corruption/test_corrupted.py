"""The scores of corrupted and missing inputs: each draw has random numbers of its own, and their spread is reported."""

from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.recipes.corruption.corrupted import CorruptionScores, Levels, LevelScores, curves, evaluated
from multifuse.recipes.corruption.corruptions import TimeShift
from multifuse.recipes.corruption.missing import at_random
from multifuse.recipes.measures.scores import SENTIMENT, measured
from tests.sizes import SMALL_SIZES

WIDTHS = {"text": 3, "audio": 2}


def model() -> CLCRForPrediction:
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    network: CLCRForPrediction = CLCRForPrediction(CLCRConfig(modalities=modalities, **SMALL_SIZES)).eval()
    return network


def batches() -> "DataLoader[Any]":
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(6, 5, width, generator=generator) for name, width in WIDTHS.items()}
    labels = torch.randn(6, generator=generator)
    return [{"inputs": inputs, "mask": dict.fromkeys(WIDTHS), "labels": labels}]  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["noise", "drop"])
def test_draw_k_has_the_random_numbers_of_seed_plus_k_and_the_deviation_is_theirs(kind: str) -> None:
    network = model()
    levels = Levels(noise=(0.5,), drop=(), shift=()) if kind == "noise" else Levels(noise=(), drop=(0.5,), shift=())

    def scores(draws: int, seed: int) -> LevelScores:
        return evaluated(network, batches(), {}, levels, draws=draws, seed=seed).of(kind)[1]

    single = [scores(1, seed).mae for seed in (7, 8, 9)]
    assert len(set(single)) == 3
    together = scores(3, 7)
    assert together.mae == pytest.approx(fmean(single))
    assert together.mae_deviation == pytest.approx(pstdev(single))


def test_each_modality_is_delayed_in_turn() -> None:
    network = model()
    scores = evaluated(network, batches(), {}, Levels(noise=(), drop=(), shift=(2,))).of("shift")[1]
    expected = []
    for name in WIDTHS:
        shift = TimeShift(name, 2)
        change = lambda inputs, mask, shift=shift: shift(inputs, mask, torch.Generator())  # noqa: E731
        expected.append(measured(network, batches(), change, SENTIMENT).mae)
    assert expected[0] != expected[1]
    assert scores.mae == pytest.approx(fmean(expected))
    assert scores.mae_deviation == pytest.approx(pstdev(expected))


def test_the_deviation_of_absence_is_that_of_its_draws() -> None:
    network = model()
    (together,) = at_random(network, batches(), SENTIMENT, (0.5,), draws=3, seed=5)
    single = [
        next(at_random(network, batches(), SENTIMENT, (0.5,), draws=1, seed=seed)).means.mae for seed in (5, 6, 7)
    ]
    assert together.means.mae == pytest.approx(fmean(single))
    assert together.deviation == pytest.approx(pstdev(single))


def test_the_rise_is_drawn_from_level_0_of_each_run() -> None:
    def run(*maes: float) -> CorruptionScores:
        scores = [LevelScores(mae, 0.1, 0.5, 0.5, "noise", level) for level, mae in zip((0.0, 1.0, 2.0), maes)]
        return CorruptionScores(tuple(scores), ())

    figure = curves({"one": [run(0.5, 0.6, 0.9)], "two": [run(0.4, 0.6, 0.8), run(0.6, 0.6, 1.0)]})
    errors, rises = figure.axes
    for axis, expected in ((errors, [0.5, 0.6, 0.9]), (rises, [0, 0.1, 0.4])):
        assert [line.get_ydata() for line in axis.lines] == [pytest.approx(expected)] * 2
