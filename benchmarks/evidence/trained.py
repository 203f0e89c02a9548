"""What is measured on a trained model beyond its score: corruption, missing modalities, probes and active tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from benchmarks.evidence.sets import EvidenceSet
from multifuse._internal.masks import masked_mean
from multifuse.layers import cached_bases
from multifuse.models.modeling_clcr import CLCRForPrediction
from multifuse.recipes.corruption import corrupted, missing
from multifuse.recipes.corruption.corrupted import Levels
from multifuse.recipes.data.features.mmsa import read_mmsa, standardised
from multifuse.recipes.data.features.planted import PlantedFeatures, planted
from multifuse.recipes.data.features.utterances import datasets
from multifuse.recipes.jobs.models import model_class
from multifuse.recipes.measures.scores import SENTIMENT

LEVELS = Levels(noise=(0.0, 1.0, 2.0), drop=(0.0, 0.3, 0.6), shift=(0, 4, 8))
DRAWS = 3


def measured(model_name: str, folder: Path, data: Path, source: EvidenceSet) -> dict[str, Any]:
    """Measures a saved model on the test split of its feature file."""
    model: PreTrainedModel = model_class(model_name).from_pretrained(folder).eval()
    names = tuple(model.config.modalities)
    content = standardised(read_mmsa(data, modalities=names))
    splits, collator = datasets(content, names)
    batches = {
        name: DataLoader(splits[name], batch_size=64, collate_fn=collator)  # type: ignore[var-annotated]
        for name in ("train", "test")
    }
    result: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    spread = corrupted.deviations(content.train)
    scores = corrupted.evaluated(model, batches["test"], spread, LEVELS, DRAWS)
    result["corruption"] = [{"kind": s.kind, "level": s.level, "mae": round(s.mae, 5)} for s in scores.corrupted]
    result["subsets"] = [
        {"modalities": subset.modalities, "mae": round(subset.measures.mae, 5)}
        for subset in missing.on_subsets(model, batches["test"], SENTIMENT)
    ]
    if isinstance(model, CLCRForPrediction):
        streams = {name: _streams(model, loader) for name, loader in batches.items()}
        result["activation"] = streams["test"].participation
        if source.planted is not None:
            drawn = planted(source.planted)
            result["recall"] = _recall(streams["test"], drawn)
            result["probes"] = _probes(streams, drawn)
    return result


class Streams:
    """What CLCR computes on a split: the codes' means, (N, ...) per stream, and alpha by level and modality."""

    def __init__(self) -> None:
        self.means: dict[str, list[NDArray[np.float32]]] = {}
        self.alpha: dict[tuple[int, str], list[NDArray[np.float32]]] = {}
        self.real: dict[str, list[NDArray[np.bool_]]] = {}

    def add(self, name: str, mean: Tensor) -> None:
        self.means.setdefault(name, []).append(mean.numpy())

    def stream(self, name: str) -> NDArray[np.float32]:
        return np.concatenate(self.means[name])

    def alphas(self, level: int, modality: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Returns alpha and which tokens are real, both (N, T), padded to the longest batch."""
        alpha, real = self.alpha[level, modality], self.real[modality]
        longest = max(values.shape[1] for values in alpha)

        def padded(values: NDArray[Any]) -> NDArray[Any]:
            return np.pad(values, ((0, 0), (0, longest - values.shape[1])))

        return np.concatenate([padded(v) for v in alpha]), np.concatenate([padded(v) for v in real])

    @property
    def participation(self) -> list[dict[str, Any]]:
        """The mean of alpha over the real tokens, and the share of them with alpha > 0, by level and modality."""
        rows = []
        for level, modality in self.alpha:
            alpha, real = self.alphas(level, modality)
            rows.append(
                {
                    "level": level + 1,
                    "modality": modality,
                    "participation": round(float(alpha[real].mean()), 4),
                    "active": round(float((alpha[real] > 0).mean()), 4),
                }
            )
        return rows


@torch.no_grad()
def _streams(model: CLCRForPrediction, batches: DataLoader[Any]) -> Streams:
    streams = Streams()
    with cached_bases(model):
        for batch in batches:
            output = model.clcr(batch["inputs"], batch["mask"])
            weights = output.aggregate.level_weights
            for name, real in output.mask.items():
                streams.real.setdefault(name, []).append(real.numpy())
                for kind in ("shared_code", "private_code"):
                    means = [masked_mean(getattr(level, kind)[name], real) for level in output.levels]
                    streams.add(f"{kind.split('_')[0]} {name}", torch.cat(means, dim=-1))
                for index, level in enumerate(output.levels):
                    streams.alpha.setdefault((index, name), []).append(level.activation[name].numpy())
            streams.add("level weights", weights)
            streams.add("shared all", output.aggregate.shared)
            streams.add("private all", output.aggregate.private)
    return streams


def _recall(streams: Streams, drawn: PlantedFeatures) -> list[dict[str, Any]]:
    """Compares the tokens that carry a factor with those that are active: by level and modality of the test split."""
    rows = []
    for level, modality in streams.alpha:
        alpha, real = streams.alphas(level, modality)
        carries = drawn.truth["test"].tokens[modality][:, : alpha.shape[1]] & real
        if not carries.any():
            continue
        others = real & ~carries
        rows.append(
            {
                "level": level + 1,
                "modality": modality,
                "recall": round(float((alpha[carries] > 0).mean()), 4),
                "active_others": round(float((alpha[others] > 0).mean()), 4),
                "alpha": round(float(alpha[carries].mean()), 4),
                "alpha_others": round(float(alpha[others].mean()), 4),
            }
        )
    return rows


def _probes(streams: Mapping[str, Streams], drawn: PlantedFeatures) -> list[dict[str, Any]]:
    """Reads every factor from the means of every stream by ridge regression, and returns R^2 on the test split."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = []
    for stream in sorted(name for name in streams["test"].means if name != "level weights"):
        for column, factor in enumerate(drawn.settings.factors):
            values = {split: drawn.truth[split].values[:, column] for split in ("train", "test")}
            probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
            probe.fit(streams["train"].stream(stream), values["train"])
            score = probe.score(streams["test"].stream(stream), values["test"])
            rows.append(
                {"stream": stream, "factor": factor.name, "shared": factor.shared, "r2": round(float(score), 4)}
            )
    return rows
