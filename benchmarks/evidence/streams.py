"""What CLCR computes inside, on whole splits: whether tokens that carry a factor are active, and where a factor is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from multifuse._internal.masks import masked_mean
from multifuse.layers import cached_bases
from multifuse.models.modeling_clcr import CLCRForPrediction
from multifuse.recipes.data.features.planted import PlantedFeatures

Array = NDArray[Any]


@dataclass(frozen=True)
class Streams:
    """What CLCR computes on the N samples of a split, whose longest has T tokens of a modality."""

    means: Mapping[str, Array]
    """(N, D) by stream: the codes' means over the tokens, all levels side by side, and both parts of the aggregate."""
    alpha: tuple[Mapping[str, Array], ...]
    """By level and modality (N, T)."""
    real: Mapping[str, Array]
    """By modality (N, T): which tokens are real."""


@torch.no_grad()
def streams(model: CLCRForPrediction, batches: DataLoader[Any]) -> Streams:
    """Computes the streams on batches, in their order."""
    with cached_bases(model):
        parts = [_streams(model, batch) for batch in batches]
    return Streams(
        {name: np.concatenate([part.means[name] for part in parts]) for name in parts[0].means},
        tuple(
            {name: _padded([part.alpha[level][name] for part in parts]) for name in parts[0].real}
            for level in range(len(parts[0].alpha))
        ),
        {name: _padded([part.real[name] for part in parts]) for name in parts[0].real},
    )


def _streams(model: CLCRForPrediction, batch: Mapping[str, Any]) -> Streams:
    output = model.clcr(batch["inputs"], batch["mask"])
    means = {"shared, fused": output.aggregate.shared.numpy(), "private, fused": output.aggregate.private.numpy()}
    for name, mask in output.mask.items():
        for kind in ("shared", "private"):
            codes = [masked_mean(getattr(level, f"{kind}_code")[name], mask) for level in output.levels]
            means[f"{kind}, {name}"] = torch.cat(codes, dim=-1).numpy()
    alpha = tuple({name: values.numpy() for name, values in level.activation.items()} for level in output.levels)
    real = {
        name: np.ones(alpha[0][name].shape, bool) if mask is None else mask.numpy()
        for name, mask in output.mask.items()
    }
    return Streams(means, alpha, real)


def _padded(parts: list[Array]) -> Array:
    """Concatenates arrays (B, T), padded with zeros to the largest T."""
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts])


def participation(split: Streams) -> list[dict[str, Any]]:
    """Returns the mean of alpha over the real tokens, and the share of them with alpha > 0, by level and modality."""
    rows = []
    for level, by_modality in enumerate(split.alpha, start=1):
        for name, alpha in by_modality.items():
            values = alpha[split.real[name]]
            rows.append({"level": level, "modality": name, "participation": _mean(values), "active": _mean(values > 0)})
    return rows


def recall(test: Streams, planted: PlantedFeatures) -> list[dict[str, Any]]:
    """Compares the test tokens that carry a factor with all others: by level and modality, the share with alpha > 0."""
    rows = []
    for level, by_modality in enumerate(test.alpha, start=1):
        for name, alpha in by_modality.items():
            real = test.real[name]
            carries = planted.truth["test"].tokens[name][:, : real.shape[1]] & real
            if not carries.any():
                continue
            others = real & ~carries
            rows.append(
                {
                    "level": level,
                    "modality": name,
                    "recall": _mean(alpha[carries] > 0),
                    "active_others": _mean(alpha[others] > 0),
                    "alpha": _mean(alpha[carries]),
                    "alpha_others": _mean(alpha[others]),
                }
            )
    return rows


def probes(train: Streams, test: Streams, planted: PlantedFeatures) -> list[dict[str, Any]]:
    """Reads every factor from every stream by ridge regression, fitted on train, and returns R^2 on test."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = []
    for stream in sorted(test.means):
        for column, factor in enumerate(planted.settings.factors):
            probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
            probe.fit(train.means[stream], planted.truth["train"].values[:, column])
            score = float(probe.score(test.means[stream], planted.truth["test"].values[:, column]))
            rows.append({"stream": stream, "factor": factor.name, "shared": factor.shared, "r2": round(score, 4)})
    return rows


def _mean(values: Array) -> float:
    return round(float(values.mean()), 4)
