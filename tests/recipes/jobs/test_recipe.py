"""What a recipe and the arguments of a job reach: the optimiser, the loss, the model and its seeds, before training."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pytest
import torch

from multifuse.recipes.jobs.recipe import FEATURES
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob
from multifuse.recipes.trainer.trainer import RecipeTrainer
from tests.files import mmsa_splits, write
from tests.sizes import SMALL_SIZES

OWN = replace(
    FEATURES,
    lr=0.03,
    max_grad_norm=0.25,
    feature_dropout=0.3,
    regression_loss="mse",
    init_last_level=0.7,
    level_floor=0.2,
    modality_floor=0.4,
)


class StartedError(Exception):
    """Carries the trainer of a job, which is about to train."""

    def __init__(self, trainer: RecipeTrainer) -> None:
        self.trainer = trainer


def started(job: Any) -> RecipeTrainer:
    """Returns the trainer of a job before its first step."""

    def train(trainer: RecipeTrainer, **_: Any) -> NoReturn:
        raise StartedError(trainer)

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(RecipeTrainer, "train", train)
        with pytest.raises(StartedError) as caught:
            run(replace(job, output=Path(folder) / "run"))
    return caught.value.trainer


@pytest.fixture
def job(tmp_path: Path) -> SentimentJob:
    data = write(tmp_path / "small.pkl", mmsa_splits(count=12))
    return SentimentJob(output=tmp_path / "run", data=data, device="cpu", batch_size=4, config=SMALL_SIZES)


def test_every_field_of_a_recipe_reaches_what_it_is_for(job: SentimentJob) -> None:
    trainer = started(replace(job, recipe=OWN))
    config = trainer.model.config
    assert (trainer.args.learning_rate, trainer.args.max_grad_norm) == (0.03, 0.25)
    assert (config.regression_loss, config.init_last_level) == ("mse", 0.7)
    assert (config.level_floor, config.modality_floor) == (0.2, 0.4)
    assert {entry["dropout"] for entry in config.modalities.values()} == {0.3}


def test_the_fields_of_a_job_take_precedence_over_its_recipe(job: SentimentJob) -> None:
    fields = {**SMALL_SIZES, "level_floor": 0.6, "regression_loss": "smooth_l1"}
    trainer = started(replace(job, recipe=OWN, lr=0.07, dropout=0.15, config=fields))
    assert trainer.args.learning_rate == 0.07
    config = trainer.model.config
    assert (config.level_floor, config.regression_loss, config.modality_floor) == (0.6, "smooth_l1", 0.4)
    assert [config.dropout, *(entry["dropout"] for entry in config.modalities.values())] == [0.15] * 4


def test_the_seed_draws_the_weights_and_the_batches(job: SentimentJob) -> None:
    trainers = [started(replace(job, seed=seed)) for seed in (1, 1, 2)]
    weights = [torch.cat([p.flatten() for p in trainer.model.parameters()]) for trainer in trainers]
    batches = []
    for trainer in trainers:
        torch.manual_seed(0)
        batches.append(torch.cat([batch["labels"] for batch in trainer.get_train_dataloader()]))
    for drawn in (weights, batches):
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])


def test_the_kept_epoch_is_the_best_on_valid_and_the_written_measures_are_its_own(job: SentimentJob) -> None:
    """The measures of every epoch, of the kept model and of what the files say must be those of one split."""
    result = run(replace(job, epochs=4, lr=0.02))
    metrics = json.loads((job.output / "metrics.json").read_text())
    errors = {entry["epoch"]: entry["mae"] for entry in metrics["epochs"]}
    assert len(set(errors.values())) == 4
    best = min(errors, key=lambda epoch: errors[epoch])
    assert metrics["best_epoch"] == result.best_epoch == best
    assert metrics["valid"]["mae"] == result.valid.mae == pytest.approx(errors[best], rel=1e-6)
    assert metrics["test"]["mae"] == result.test.mae != result.valid.mae
