"""The comparison with other models: which are compared, and that their steps and predictions are real."""

import torch

from benchmarks.models_speed import NAMES, inference, training_step
from multifuse.recipes.jobs.models import MODELS


def test_every_fusion_that_can_be_trained_is_compared() -> None:
    assert set(NAMES) == set(MODELS) - {"text"}


def test_a_step_changes_the_weights_and_a_prediction_has_one_number_per_sample() -> None:
    model, step = training_step("late-fusion")
    before = [weight.detach().clone() for weight in model.parameters()]
    step()
    assert any(not torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))
    assert inference("clcr", 2)().shape == (2, 1)
