"""A feature file, planted or given, and how models are trained and measured on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from benchmarks.evidence.runs import Run
from benchmarks.evidence.streams import participation, probes, recall, streams
from benchmarks.evidence.trained import of_pooled, on_fewer_modalities, trained
from multifuse.models.modeling_clcr import CLCRForPrediction
from multifuse.processing import MultimodalCollator
from multifuse.recipes import pooled
from multifuse.recipes.corruption import corrupted
from multifuse.recipes.corruption.corrupted import Levels
from multifuse.recipes.data.features.mmsa import read_mmsa, standardised
from multifuse.recipes.data.features.planted import planted, write_planted
from multifuse.recipes.data.features.planted_settings import PlantedSettings
from multifuse.recipes.data.features.utterances import datasets
from multifuse.recipes.jobs.sentiment import SentimentJob
from multifuse.recipes.measures.scores import SENTIMENT
from multifuse.recipes.measures.sentiment import sentiment_measures

LEVELS = Levels(noise=(0.0, 1.0, 2.0), drop=(0.0, 0.3, 0.6), shift=(0, 4, 8))
DRAWS = 3


@dataclass(frozen=True)
class FeatureSet:
    """A feature file: ``source`` itself, or what its settings plant, drawn anew for every run and always the same."""

    source: Path | PlantedSettings
    fingerprint: str
    """Implements `EvidenceSet`: depends on the settings, or on what the feature file was made of.

    The file itself would not do: the last digits of its text features depend on the processor.
    """

    def measured(self, run: Run, folder: Path) -> dict[str, Any]:
        """Implements `EvidenceSet`."""
        data = self.file(folder)
        if not run.is_trained:
            return _pooled(run, data)
        job = SentimentJob(
            output=folder / "run",
            data=data,
            model=run.model,
            modalities=run.modalities,
            epochs=run.epochs,
            lr=run.lr,
            seed=run.seed,
            config=dict(run.config),
            device="cpu",
        )
        result, model = trained(job, run.model)
        return result | self._inside(model, data)

    def file(self, folder: Path) -> Path:
        """Returns the feature file, which is made in ``folder`` if it is planted."""
        if isinstance(self.source, Path):
            return self.source
        path = folder / "planted.pkl"
        write_planted(path, self.source)
        return path

    def _inside(self, model: PreTrainedModel, data: Path) -> dict[str, Any]:
        """Returns what corrupted and missing input costs a model and, of CLCR, what its streams contain."""
        names = tuple(model.config.modalities)
        content = standardised(read_mmsa(data, modalities=names))
        splits = datasets(content, names)
        batches: dict[str, DataLoader[Any]] = {
            name: DataLoader(splits[name], batch_size=64, collate_fn=MultimodalCollator()) for name in ("train", "test")
        }
        scores = corrupted.evaluated(model, batches["test"], corrupted.deviations(content.train), LEVELS, DRAWS)
        result: dict[str, Any] = {
            "corruption": [{"kind": s.kind, "level": s.level, "mae": round(s.mae, 5)} for s in scores.corrupted],
            "subsets": on_fewer_modalities(model, batches["test"], SENTIMENT),
        }
        if isinstance(model, CLCRForPrediction):
            test = streams(model, batches["test"])
            result["activation"] = participation(test)
            if isinstance(self.source, PlantedSettings):
                drawn = planted(self.source)
                result["recall"] = recall(test, drawn)
                result["probes"] = probes(streams(model, batches["train"]), test, drawn)
        return result


def _pooled(run: Run, data: Path) -> dict[str, Any]:
    content = read_mmsa(data)
    predictions = pooled.regression(content, run.model, run.modalities)  # type: ignore[arg-type]
    return of_pooled(predictions, sentiment_measures, content.valid.labels, content.test.labels)
