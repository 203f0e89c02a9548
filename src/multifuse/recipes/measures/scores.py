"""The measures of a model on batches that are changed on their way, and their means over several tries."""

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

from multifuse.recipes.measures import classification, sentiment
from multifuse.recipes.measures.classification import ClassificationMeasures, classification_measures
from multifuse.recipes.measures.measures import Choice, Measures
from multifuse.recipes.measures.sentiment import SentimentMeasures, sentiment_measures

Measured = TypeVar("Measured", bound=Measures)
Masks = Mapping[str, Tensor | None]
Change = Callable[[Mapping[str, Any], Masks], tuple[Mapping[str, Any], Masks]]


@dataclass(frozen=True)
class Scoring(Generic[Measured]):
    """How a model's logits are measured against labels, and how that is shown."""

    measure: Callable[[NDArray[np.float32], NDArray[Any]], Measured]
    choice: Choice


SENTIMENT = Scoring(lambda logits, labels: sentiment_measures(logits[:, 0], labels), sentiment.CHOICE)
CLASSES: Scoring[ClassificationMeasures] = Scoring(
    lambda logits, labels: classification_measures(logits.argmax(-1), labels), classification.CHOICE
)


def mean_measures(tries: Sequence[Measured]) -> Measured:
    """Every measure's mean."""
    names = [field.name for field in fields(tries[0])]  # type: ignore[arg-type]
    return type(tries[0])(*(math.fsum(getattr(own, name) for own in tries) / len(tries) for name in names))


@dataclass(frozen=True)
class MeanScores:
    """Means of the sentiment measures over several scorings, and the MAE's deviation."""

    mae: float
    mae_deviation: float
    corr: float
    acc2_non0: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: an undefined measure is ``None``."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def averaged(scores: Sequence[SentimentMeasures]) -> dict[str, float]:
    """The fields of `MeanScores`."""
    means, deviation = mean_measures(scores), pstdev(score.mae for score in scores)
    return {"mae": means.mae, "mae_deviation": deviation, "corr": means.corr, "acc2_non0": means.acc2_non0}


@torch.no_grad()
def measured(model: PreTrainedModel, batches: DataLoader[Any], change: Change, scoring: Scoring[Measured]) -> Measured:
    """Scores a model on a collator's batches, each one changed before the model reads it."""
    model.eval()
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[Any]] = []
    for batch in batches:
        inputs, mask = change(batch["inputs"], batch["mask"])
        output = model(_on(model.device, inputs), _on(model.device, mask))
        logits.append(output.logits.float().cpu().numpy())
        labels.append(batch["labels"].numpy())
    return scoring.measure(np.concatenate(logits), np.concatenate(labels))


def _on(device: torch.device, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
