"""Measures of a model on batches that are changed before it reads them, and their means over several runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import pstdev
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from multifuse.layers import cached_bases
from multifuse.recipes.measures import classification, sentiment
from multifuse.recipes.measures.classification import ClassificationMeasures, classification_measures
from multifuse.recipes.measures.measures import Choice, Measures
from multifuse.recipes.measures.sentiment import SentimentMeasures, sentiment_measures

Measured = TypeVar("Measured", bound=Measures)
Masks = Mapping[str, Tensor | None]
Change = Callable[[Mapping[str, Any], Masks], tuple[Mapping[str, Any], Masks]]


@dataclass(frozen=True)
class Scoring(Generic[Measured]):
    """How a model's logits are measured against labels, and how the measures are shown."""

    measure: Callable[[NDArray[np.float32], NDArray[Any]], Measured]
    choice: Choice


SENTIMENT = Scoring(lambda logits, labels: sentiment_measures(logits[:, 0], labels), sentiment.CHOICE)
CLASSES: Scoring[ClassificationMeasures] = Scoring(
    lambda logits, labels: classification_measures(logits.argmax(-1), labels), classification.CHOICE
)


def mean_measures(scores: Sequence[Measured]) -> Measured:
    """Returns the mean of every measure."""
    names = [field.name for field in fields(scores[0])]  # type: ignore[arg-type]
    return type(scores[0])(*(math.fsum(getattr(score, name) for score in scores) / len(scores) for name in names))


@dataclass(frozen=True)
class MeanScores:
    """Means of the sentiment measures over several scores, and the standard deviation of the MAE."""

    mae: float
    mae_deviation: float
    corr: float
    acc2_non0: float

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields for JSON, an undefined measure as ``None``."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def averaged(scores: Sequence[SentimentMeasures]) -> dict[str, float]:
    """Returns the fields of `MeanScores`."""
    means, deviation = mean_measures(scores), pstdev(score.mae for score in scores)
    return {"mae": means.mae, "mae_deviation": deviation, "corr": means.corr, "acc2_non0": means.acc2_non0}


@torch.no_grad()
def measured(model: PreTrainedModel, batches: DataLoader[Any], change: Change, scoring: Scoring[Measured]) -> Measured:
    """Scores a model on a collator's batches, each of which ``change`` alters before the model reads it.

    Raises:
        ValueError: predictions that are not finite.
    """
    model.eval()
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[Any]] = []
    with cached_bases(model):
        for batch in batches:
            inputs, mask = change(batch["inputs"], batch["mask"])
            output = model(_on(model.device, inputs), _on(model.device, mask))
            logits.append(output.logits.float().cpu().numpy())
            labels.append(batch["labels"].numpy())
    if not all(np.isfinite(part).all() for part in logits):  # an argmax of NaN would be a class
        raise ValueError("the model's predictions are not finite")
    return scoring.measure(np.concatenate(logits), np.concatenate(labels))


def _on(device: torch.device, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
