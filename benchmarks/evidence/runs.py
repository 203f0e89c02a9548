"""One training of the evidence: what is trained on what, and the file that holds everything measured on it."""

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.evidence.sets import EvidenceSet
from benchmarks.evidence.trained import measured
from multifuse.recipes.baselines import pooled
from multifuse.recipes.data.features.mmsa import MMSAData, read_mmsa
from multifuse.recipes.files import whole
from multifuse.recipes.jobs.sentiment import SentimentJob, run
from multifuse.recipes.measures.sentiment import sentiment_measures


@dataclass(frozen=True)
class Run:
    """A model, what differs from its defaults, and a seed."""

    data: str
    """The name of an `EvidenceSet`."""
    model: str
    """A name of `multifuse train --model`, or one of ``pooled.KINDS``."""
    seed: int
    lr: float | None = None
    modalities: tuple[str, ...] | None = None
    config: tuple[tuple[str, Any], ...] = ()
    """Fields of `CLCRConfig` that differ from the reference configuration."""

    @property
    def is_trained(self) -> bool:
        return self.model not in pooled.KINDS

    @property
    def name(self) -> str:
        """The name of the run's file, without the seed."""
        parts = [self.model, *(self.modalities or ())]
        parts += [f"{field}={value}" for field, value in self.config]
        return ".".join(parts + ([] if self.lr is None else [f"lr={self.lr:g}"]))

    def path(self, results: Path) -> Path:
        return results / self.data / f"{self.name}.seed={self.seed}.json"


def load(run: Run, results: Path) -> dict[str, Any] | None:
    """Returns what was measured on a run; ``None`` if it has not been done."""
    path = run.path(results)
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def do(run_: Run, source: EvidenceSet, results: Path) -> None:
    """Trains and measures a model, and writes its file."""
    with tempfile.TemporaryDirectory() as folder:
        data = source.file(Path(folder))
        result = _trained(run_, source, data, Path(folder)) if run_.is_trained else _pooled(run_, data)
    result["run"] = asdict(run_)
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    path = run_.path(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_text(json.dumps(result) + "\n")


def _trained(run_: Run, source: EvidenceSet, data: Path, folder: Path) -> dict[str, Any]:
    job = SentimentJob(
        output=folder / "run",
        data=data,
        model=run_.model,
        modalities=run_.modalities,
        lr=run_.lr,
        seed=run_.seed,
        config=dict(run_.config),
        device="cpu",
    )
    outcome = run(job)
    metrics = json.loads((job.output / "metrics.json").read_text())
    kept = ("valid", "test", "best_epoch", "epochs", "seconds", "recipe", "versions", "op_backend")
    result = {name: metrics[name] for name in kept}
    result["test_predictions"] = _rounded(outcome.predictions)
    return result | measured(run_.model, job.output / "model", data, source)


def _pooled(run_: Run, data: Path) -> dict[str, Any]:
    content: MMSAData = read_mmsa(data)
    predictions = pooled.regression(content, run_.model, run_.modalities)  # type: ignore[arg-type]
    scores: Mapping[str, NDArray[Any]] = {"valid": predictions.valid, "test": predictions.test}
    return {
        **{
            split: sentiment_measures(values, getattr(content, split).labels).as_dict()
            for split, values in scores.items()
        },
        "chosen": predictions.parameters,
        "test_predictions": _rounded(predictions.test),
    }


def _rounded(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 4) for value in np.asarray(values)]
