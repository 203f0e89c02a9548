"""What is kept of every model: its scores and predictions and, if it was trained, its score with modalities missing."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from multifuse.recipes.corruption.missing import on_subsets
from multifuse.recipes.jobs.job import Job
from multifuse.recipes.jobs.models import model_class
from multifuse.recipes.jobs.run import run
from multifuse.recipes.measures.measures import Measures
from multifuse.recipes.measures.scores import Scoring
from multifuse.recipes.pooled import PooledPredictions

_KEPT = ("valid", "test", "best_epoch", "epochs", "seconds", "samples", "recipe", "versions", "op_backend")


def trained(job: Job[Any, Any], model: str) -> tuple[dict[str, Any], PreTrainedModel]:
    """Runs a job; returns what is kept of its metrics.json, and the model of the best epoch, ``model`` by name."""
    outcome = run(job)
    metrics = json.loads((job.output / "metrics.json").read_text())
    best: PreTrainedModel = model_class(model).from_pretrained(job.output / "model").eval()
    kept = {name: metrics[name] for name in _KEPT}
    return {**kept, "test_predictions": rounded(outcome.predictions)}, best


def of_pooled(
    predictions: PooledPredictions,
    measure: Callable[[NDArray[Any], NDArray[Any]], Measures],
    valid: NDArray[Any],
    test: NDArray[Any],
) -> dict[str, Any]:
    """Returns what is kept of a model on pooled features, given the labels of ``valid`` and ``test``."""
    return {
        "valid": measure(predictions.valid, valid).as_dict(),
        "test": measure(predictions.test, test).as_dict(),
        "chosen": predictions.parameters,
        "test_predictions": rounded(predictions.test),
    }


def on_fewer_modalities(
    model: PreTrainedModel, batches: DataLoader[Any], scoring: Scoring[Any]
) -> list[dict[str, Any]]:
    """Scores a model on every subset of its modalities, all of them included."""
    metric = scoring.choice.metric
    return [
        {"modalities": subset.modalities, metric: round(getattr(subset.measures, metric), 5)}
        for subset in on_subsets(model, batches, scoring)
    ]


def rounded(values: NDArray[Any]) -> list[float]:
    """Returns predictions for JSON: classes, or numbers with four decimals."""
    return [value if isinstance(value, int) else round(value, 4) for value in np.asarray(values).tolist()]
