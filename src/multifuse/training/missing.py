"""What a trained model keeps of its measures when modalities are missing: on every subset, and at random."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.models.modeling_clcr import CLCRForPrediction
from multifuse.training.sentiment import SentimentMeasures, sentiment_measures

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

Masks = Mapping[str, Tensor | None]
Choice = Callable[[Mapping[str, Any], Masks], tuple[Mapping[str, Any], Masks]]


@dataclass(frozen=True)
class Subset:
    """The measures with these modalities alone."""

    modalities: tuple[str, ...]
    measures: SentimentMeasures


@dataclass(frozen=True)
class Absence:
    """Each modality of each sample absent with this rate, never all: means over the draws, and the MAE's deviation."""

    rate: float
    mae: float
    mae_deviation: float
    corr: float
    acc2_non0: float


def on_subsets(model: CLCRForPrediction, batches: DataLoader[Any]) -> Iterator[Subset]:
    """Scores the model on every subset of its modalities, the largest first."""
    names = tuple(model.config.modalities)
    for size in range(len(names), 0, -1):
        for chosen in combinations(names, size):
            yield Subset(chosen, _measures(model, batches, _only(chosen)))


def at_random(
    model: CLCRForPrediction, batches: DataLoader[Any], rates: Sequence[float] = RATES, draws: int = 5, seed: int = 0
) -> Iterator[Absence]:
    """Scores the model at each rate of absence, ``draws`` times; draw k has the same numbers at every rate."""
    names = tuple(model.config.modalities)
    for rate in rates:
        absence = _Absence(ModalityDropout(names, rate).train())
        scores = []
        for draw in range(draws if rate else 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + draw)
                scores.append(_measures(model, batches, absence))
        yield Absence(
            rate,
            mean(score.mae for score in scores),
            pstdev(score.mae for score in scores),
            mean(score.corr for score in scores),
            mean(score.acc2_non0 for score in scores),
        )


@dataclass(frozen=True)
class _Absence:
    dropout: ModalityDropout

    def __call__(self, inputs: Mapping[str, Any], mask: Masks) -> tuple[Mapping[str, Any], Masks]:
        return inputs, self.dropout(inputs, mask)


def _only(names: Sequence[str]) -> Choice:
    return lambda inputs, mask: ({name: inputs[name] for name in names}, {name: mask[name] for name in names})


@torch.no_grad()
def _measures(model: CLCRForPrediction, batches: DataLoader[Any], choice: Choice) -> SentimentMeasures:
    model.eval()
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.float32]] = []
    for batch in batches:
        inputs, mask = choice(batch["inputs"], batch["mask"])
        output = model(_on(model.device, inputs), _on(model.device, mask))
        logits.append(output.logits[:, 0].float().cpu().numpy())
        labels.append(batch["labels"].numpy())
    return sentiment_measures(np.concatenate(logits), np.concatenate(labels))


def _on(device: torch.device, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
