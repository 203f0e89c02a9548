"""What is measured on ``valid`` after every epoch of a job."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction

from multifuse.recipes.jobs.job import Job, JobError
from multifuse.recipes.measures.entropy import normalised_entropy
from multifuse.recipes.measures.measures import Choice


@dataclass(frozen=True)
class EpochMetrics:
    """Computes what Trainer logs after an evaluation: the measures, and the means of CLCR's weights and gates."""

    job: Job[Any, Any]
    modalities: tuple[str, ...]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        logits = logits_of(prediction.predictions)
        if not np.isfinite(logits).all():
            raise JobError("the model's predictions are not finite: training has diverged, try a lower --lr")
        measures = self.job.measure(self.job.predictions(logits), prediction.label_ids)
        metrics: dict[str, float] = asdict(measures)
        if isinstance(prediction.predictions, tuple):
            metrics |= self._weights(*prediction.predictions[1:])
        return metrics

    def _weights(
        self, level_weights: NDArray[Any], modality_weights: NDArray[Any], private_gates: NDArray[Any]
    ) -> dict[str, float]:
        """Returns the means over samples, and over segments where each has its own weights."""
        levels = tuple(str(level) for level in range(1, level_weights.shape[-1] + 1))
        named = {
            "level_weight": (levels, level_weights),
            "modality_weight": (self.modalities, modality_weights),
            "private_gate": (self.modalities, private_gates),
        }
        means = {
            f"{kind}_{name}": float(column.mean())
            for kind, (names, weights) in named.items()
            for name, column in zip(names, weights.reshape(-1, weights.shape[-1]).T, strict=True)
        }
        present = (modality_weights > 0) | (private_gates > 0)
        return {
            **means,
            "level_entropy": _entropy(level_weights, np.ones_like(level_weights, bool)),
            "modality_entropy": _entropy(modality_weights, present),
        }


def _entropy(weights: NDArray[Any], possible: NDArray[np.bool_]) -> float:
    width = weights.shape[-1]
    return normalised_entropy(weights.reshape(-1, width), possible.reshape(-1, width))


def logits_of(predictions: Any) -> NDArray[np.float32]:
    """Returns the logits, which are the first of the outputs of a model that has several."""
    return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions, np.float32)


def best_epoch(history: Sequence[Mapping[str, float]], choice: Choice) -> float:
    """Returns the first epoch with the best score on ``valid``."""
    name = f"eval_{choice.metric}"
    logged = [entry for entry in history if name in entry]
    sign = -1 if choice.greater_is_better else 1
    return float(min(logged, key=lambda entry: sign * entry[name])["epoch"])


def measured_epochs(history: Sequence[Mapping[str, float]], metric: str) -> list[dict[str, float | None]]:
    """Returns what was measured on ``valid`` after every epoch, without Trainer's prefix and its times."""
    times = {"runtime", "samples_per_second", "steps_per_second", "jit_compilation_time", "model_preparation_time"}
    epochs: list[dict[str, float | None]] = []
    for entry in history:
        if f"eval_{metric}" in entry:
            named = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            # Sorted, as Trainer's state is when a run is resumed from it.
            measured = {name: None if named[name] != named[name] else named[name] for name in sorted(named)}
            epochs.append({"epoch": entry["epoch"], **{name: measured[name] for name in measured if name not in times}})
    return epochs
