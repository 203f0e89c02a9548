"""The error that a model can reach on a planted set: of an oracle that knows where and along what everything lies.

The oracle estimates the value of each copy with a matched filter, and averages the copies of a shared factor with
their inverse variances. All noise is Gaussian and independent, so this gives the posterior of each factor. The oracle
predicts the median of the label's posterior (from random draws), which has the least expected absolute error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from multifuse.recipes.data.features.field_names import FEATURES
from multifuse.recipes.data.features.planted import LABEL_RANGE, PlantedFeatures
from multifuse.recipes.data.features.planted_settings import Factor, PlantedSettings
from multifuse.recipes.data.features.planted_waves import carrier, pattern

_DRAWS = 1000
_LEAST_VARIANCE = 1e-12
"""Of an estimate, so that sets without noise need no special case."""


@dataclass(frozen=True)
class Reachable:
    """Mean absolute errors on a split, from an uninformed prediction to the best that is possible."""

    constant: float
    """Of the median label of the training split."""
    without: Mapping[str, float]
    """Of an oracle that reads every modality but that of this name."""
    additive: float
    """Of an oracle that leaves out the interactions."""
    one_copy: float
    """Of an oracle that reads only the most exact copy of each shared factor."""
    oracle: float
    floor: float
    """Of the labels without their noise, near ``label_noise * sqrt(2 / pi)``: all factors are known exactly."""


@dataclass(frozen=True)
class CopyEstimates:
    """The matched filters' estimates of the values of the E events, and their variances, (N, E); 0 for distractors."""

    values: NDArray[np.float64]
    variances: NDArray[np.float64]


def reachable(data: PlantedFeatures, split: str = "test") -> Reachable:
    """Returns what can be reached on a split of a planted set."""
    settings, labels = data.settings, data.splits[split]["regression_labels"]
    estimates = copy_estimates(data, split)
    events = settings.events()
    copies = [index for index, event in enumerate(events) if event.factor is not None]
    by_variance = sorted(copies, key=lambda index: float(estimates.variances[:, index].mean()), reverse=True)
    most_exact = {events[index].factor: index for index in by_variance}

    def error(prediction: NDArray[np.float64] | float) -> float:
        return float(np.abs(np.clip(prediction, -LABEL_RANGE, LABEL_RANGE) - labels).mean())

    return Reachable(
        constant=error(float(np.median(data.splits["train"]["regression_labels"]))),
        without={
            modality: error(predicted(settings, estimates, [i for i in copies if events[i].modality != modality]))
            for modality in FEATURES
        },
        additive=error(predicted(replace(settings, interactions=()), estimates, copies)),
        one_copy=error(predicted(settings, estimates, list(most_exact.values()))),
        oracle=error(predicted(settings, estimates, copies)),
        floor=error(settings.clean_labels(data.truth[split].values)),
    )


def copy_estimates(data: PlantedFeatures, split: str) -> CopyEstimates:
    """Returns the matched filter's estimate of the value of each copy of a factor.

    Its variance is ``(feature_noise / amplitude)**2 / energy``, with the energy of the pattern, plus ``copy_noise**2``
    if the factor is shared. The sign of a clip's carrier is not given to the filter, which estimates it first.
    """
    settings, stored, starts = data.settings, data.splits[split], data.truth[split].starts
    values, variances = np.zeros(starts.shape), np.zeros(starts.shape)
    for index, event in enumerate(settings.events()):
        if event.factor is None:
            continue
        features = stored[event.modality].astype(np.float64)
        along = np.where(np.isfinite(features), features, 0.0) @ data.directions[index] / event.amplitude
        copy_noise = settings.copy_noise if settings.factors[event.factor].shared else 0.0
        for row, length in enumerate(stored[f"{event.modality}_lengths"]):
            constant, scaled = carrier(event.level, length), pattern(event.level, int(starts[row, index]), length)
            energy = scaled @ scaled
            sign = -1.0 if along[row, :length] @ constant < 0 else 1.0
            values[row, index] = (sign * along[row, :length] - constant) @ scaled / energy
            variances[row, index] = (settings.feature_noise / event.amplitude) ** 2 / energy + copy_noise**2
    return CopyEstimates(values, variances)


def averaged(
    settings: PlantedSettings, estimates: CopyEstimates, column: int, chosen: Collection[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Returns a factor's estimate from its ``chosen`` copies, and its variance, (N,); ``None`` if it has none."""
    copies = [index for index in chosen if settings.events()[index].factor == column]
    if not copies:
        return None
    precisions = 1 / np.maximum(estimates.variances[:, copies], _LEAST_VARIANCE)
    variance = 1 / precisions.sum(1)
    return (precisions * estimates.values[:, copies]).sum(1) * variance, variance


def predicted(settings: PlantedSettings, estimates: CopyEstimates, chosen: Collection[int]) -> NDArray[np.float64]:
    """Returns the posterior median of each label, (N,), given the copies with the ``chosen`` indices of events."""
    random = np.random.Generator(np.random.PCG64(0))
    shape = (_DRAWS, len(estimates.values))
    factors = [
        _posterior(factor, averaged(settings, estimates, column, chosen), random.uniform(size=shape)).reshape(-1)
        for column, factor in enumerate(settings.factors)
    ]
    labels = settings.clean_labels(np.stack(factors, 1)).reshape(shape)
    return np.asarray(np.median(labels + random.normal(scale=settings.label_noise, size=shape), axis=0))


def _posterior(
    factor: Factor, estimate: tuple[NDArray[np.float64], NDArray[np.float64]] | None, quantiles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the values of a factor at the quantiles (S, N) of its posterior: of its prior if nothing is known."""
    if factor.values == "binary":
        probable = 0.5 if estimate is None else (1 + np.tanh(estimate[0] / estimate[1])) / 2
        return np.where(quantiles < probable, 1.0, -1.0)
    return 2 * quantiles - 1 if estimate is None else _truncated_normal(*estimate, quantiles)


def _truncated_normal(
    centre: NDArray[np.float64], variance: NDArray[np.float64], quantiles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the quantiles (S, N) of a normal distribution truncated to [-1, 1]."""
    # Mirrored to positive centres, so that the masses of the tails are small numbers, which floats resolve.
    middle, deviation = torch.from_numpy(np.abs(centre)), torch.from_numpy(np.sqrt(variance))
    low, high = (torch.special.log_ndtr((bound - middle) / deviation).exp() for bound in (-1.0, 1.0))
    values = middle + deviation * torch.special.ndtri(low + torch.from_numpy(quantiles) * (high - low))
    values = torch.where(high > 0, values, 1.0).clamp(-1, 1)  # without any mass, the limit is the nearest bound
    return np.asarray(np.where(centre < 0, -1.0, 1.0) * values.numpy())
