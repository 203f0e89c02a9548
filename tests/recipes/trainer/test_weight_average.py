"""The weight average: worked by hand, evaluated and kept as the model, and resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, TrainerCallback, TrainingArguments, set_seed

from multifuse.recipes.jobs.recipe import FEATURES
from multifuse.recipes.trainer.trainer import RecipeTrainer
from multifuse.recipes.trainer.weight_average import TRAINED_WEIGHTS, WeightAverage

RECIPE = replace(FEATURES, weight_average=0.8, schedule="constant", warmup=0.0)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.weight * x
        return {"loss": (logits - labels).square().mean(), "logits": logits}


class Points(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.tensor([index / 8.0]), "labels": torch.tensor([-index / 8.0])}


class StopAfterOneEpoch(TrainerCallback):
    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = True


class WeightsSaved(TrainerCallback):
    """Records the averaged and the trained weight of every checkpoint when it is written, as not all are kept."""

    def __init__(self) -> None:
        self.weights: list[tuple[float, float]] = []

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        averaged, trained = (
            load_file(folder / name)["weight"].item() for name in ("model.safetensors", TRAINED_WEIGHTS)
        )
        self.weights.append((averaged, trained))


def mae(prediction: EvalPrediction) -> dict[str, float]:
    return {"mae": float(np.abs(prediction.predictions - prediction.label_ids).mean())}


def trainer(folder: Path, epochs: int = 3) -> RecipeTrainer:
    set_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="mae",
        greater_is_better=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    points = Points()
    return RecipeTrainer(
        Line(), arguments, recipe=RECIPE, train_dataset=points, eval_dataset=points, compute_metrics=mae
    )


def test_the_average_worked_by_hand() -> None:
    model = Line()
    average = WeightAverage(model, 0.15)
    for step, weight in ((1, 12.0), (2, 20.0)):
        model.weight.data.fill_(weight)
        average.update(step)
    # With decay 1/10, 2 becomes 0.2 + 0.9 * 12 = 11; with 0.15 (2/11 is more), that becomes 1.65 + 0.85 * 20 = 18.65.
    with average.in_place() as trained:
        assert model.weight.item() == pytest.approx(18.65)
        assert trained["weight"].item() == 20.0
    assert model.weight.item() == 20.0
    with pytest.raises(ValueError, match=r"decay must be in \(0, 1\), got 1"):
        WeightAverage(model, 1.0)


def test_batch_statistics_are_averaged_with_the_weights_that_they_belong_to() -> None:
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.5)
    model.running_mean = torch.tensor([10.0])
    average.update(1)
    with average.in_place():
        assert model.running_mean.item() == pytest.approx(9.0)  # the decay of the first step is 1/10
    assert model.running_mean.item() == 10.0


def test_an_error_while_the_average_is_in_place_restores_the_weights() -> None:
    model = Line()
    average = WeightAverage(model, 0.5)
    model.weight.data.fill_(7.0)
    with pytest.raises(RuntimeError, match="evaluation failed"), average.in_place():
        raise RuntimeError("evaluation failed")
    assert model.weight.item() == 7.0


def test_the_average_is_evaluated_and_kept(tmp_path: Path) -> None:
    run, saved = trainer(tmp_path), WeightsSaved()
    run.add_callback(saved)
    run.train()
    evaluated = [entry["eval_mae"] for entry in run.state.log_history if "eval_mae" in entry]
    mean_x = np.mean(np.arange(8) / 8)
    assert len(saved.weights) == 3
    for (averaged, trained), error in zip(saved.weights, evaluated, strict=True):
        assert error == pytest.approx(abs(averaged + 1) * mean_x, rel=1e-5)
        assert averaged > trained, "the average lags behind the falling weight"
    best = load_file(tmp_path / "checkpoint-6" / "model.safetensors")["weight"]
    assert torch.equal(run.model.weight.data, best)
    assert run.evaluate()["eval_mae"] == pytest.approx(evaluated[-1])


def test_a_resumed_run_continues_with_the_weights_and_the_average(tmp_path: Path) -> None:
    trainer(tmp_path / "whole").train()
    interrupted = trainer(tmp_path / "parts")
    interrupted.add_callback(StopAfterOneEpoch())
    interrupted.train()
    trainer(tmp_path / "parts").train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    for name in ("model.safetensors", TRAINED_WEIGHTS):
        resumed, uninterrupted = (load_file(tmp_path / run / "checkpoint-6" / name) for run in ("parts", "whole"))
        assert torch.equal(resumed["weight"], uninterrupted["weight"])


def test_several_validation_sets_are_all_evaluated_with_the_average(tmp_path: Path) -> None:
    run = trainer(tmp_path, epochs=1)
    run.eval_dataset = {"one": Points(), "other": Points()}
    run.args.metric_for_best_model = "one_mae"
    run.train()
    averaged = load_file(tmp_path / "checkpoint-2" / "model.safetensors")["weight"].item()
    mean_x = np.mean(np.arange(8) / 8)
    for name in ("one", "other"):
        (error,) = [entry[f"eval_{name}_mae"] for entry in run.state.log_history if f"eval_{name}_mae" in entry]
        assert error == pytest.approx(abs(averaged + 1) * mean_x, rel=1e-5)
    assert run.average is None


class WeightsOfSteps(TrainerCallback):
    """Records the trained weight after every step."""

    def __init__(self) -> None:
        self.weights: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append(model.weight.item())


def test_in_training_the_decay_is_that_of_the_number_of_the_step(tmp_path: Path) -> None:
    run, saved, steps = trainer(tmp_path), WeightsSaved(), WeightsOfSteps()
    run.add_callback(saved)
    run.add_callback(steps)
    run.train()
    average = 2.0
    for step, weight in enumerate(steps.weights, start=1):
        decay = min(0.8, step / (step + 9))
        average = decay * average + (1 - decay) * weight
    assert len(steps.weights) == 6
    assert saved.weights[-1][0] == pytest.approx(average)
