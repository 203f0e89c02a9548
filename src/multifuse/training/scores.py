"""The sentiment measures of a model on batches that are changed on their way, and their means over several tries."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from multifuse.training.sentiment import SentimentMeasures, sentiment_measures

Masks = Mapping[str, Tensor | None]
Change = Callable[[Mapping[str, Any], Masks], tuple[Mapping[str, Any], Masks]]


@dataclass(frozen=True)
class MeanScores:
    """Means over several scorings, and the MAE's deviation."""

    mae: float
    mae_deviation: float
    corr: float
    acc2_non0: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: an undefined measure is ``None``."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def averaged(scores: Sequence[SentimentMeasures]) -> dict[str, float]:
    """The fields of `MeanScores`."""
    return {
        "mae": mean(score.mae for score in scores),
        "mae_deviation": pstdev(score.mae for score in scores),
        "corr": math.fsum(score.corr for score in scores) / len(scores),
        "acc2_non0": math.fsum(score.acc2_non0 for score in scores) / len(scores),
    }


@torch.no_grad()
def measured(model: PreTrainedModel, batches: DataLoader[Any], change: Change) -> SentimentMeasures:
    """Scores a model on batches of `Collator`, each one changed before the model reads it."""
    model.eval()
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.float32]] = []
    for batch in batches:
        inputs, mask = change(batch["inputs"], batch["mask"])
        output = model(_on(model.device, inputs), _on(model.device, mask))
        logits.append(output.logits[:, 0].float().cpu().numpy())
        labels.append(batch["labels"].numpy())
    return sentiment_measures(np.concatenate(logits), np.concatenate(labels))


def _on(device: torch.device, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
