"""Scores a trained model with modalities missing: on every subset of them, and with modalities absent at random."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import pstdev
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.recipes.measures.measures import Choice
from multifuse.recipes.measures.scores import Change, Masks, Measured, Scoring, mean_measures, measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Subset(Generic[Measured]):
    """The measures with only these modalities."""

    modalities: tuple[str, ...]
    measures: Measured


@dataclass(frozen=True)
class Absence(Generic[Measured]):
    """The measures when each modality of each sample is absent with probability ``rate``, but never all of them."""

    rate: float
    means: Measured
    """Means over the draws."""
    deviation: float
    """Standard deviation over the draws of the measure by which the best epoch is chosen."""


@dataclass(frozen=True)
class Missing(Generic[Measured]):
    """A model's measures with modalities missing."""

    subsets: tuple[Subset[Measured], ...]
    absences: tuple[Absence[Measured], ...]
    choice: Choice

    def report(self) -> dict[str, Any]:
        """Returns the measures for JSON."""
        deviation = f"{self.choice.metric}_deviation"
        return {
            "subsets": [{"modalities": subset.modalities, **subset.measures.as_dict()} for subset in self.subsets],
            "absences": [
                {"rate": absence.rate, **absence.means.as_dict(), deviation: absence.deviation}
                for absence in self.absences
            ],
        }

    def tables(self) -> Iterator["Table"]:
        """Yields the printed tables: by subset, and by rate of absence."""
        from rich.table import Table

        shown = [self.choice.of(name) for name in self.choice.each_epoch]
        labels = [measure.label for measure in shown]
        by_subset = Table("modalities", *labels, title="With only these modalities")
        for subset in self.subsets:
            cells = [measure.text(getattr(subset.measures, measure.name)) for measure in shown]
            by_subset.add_row(" + ".join(subset.modalities), *cells)
        yield by_subset
        by_rate = Table("absent", *labels, title="Each modality of each sample absent at random")
        for absence in self.absences:
            cells = [measure.text(getattr(absence.means, measure.name)) for measure in shown]
            column = self.choice.each_epoch.index(self.choice.metric)
            cells[column] += f" +- {shown[column].text(absence.deviation)}"
            by_rate.add_row(f"{100 * absence.rate:.0f} %", *cells)
        yield by_rate

    def figure(self) -> "Figure":
        """Draws the measure by which the best epoch is chosen, for every subset and against the rate of absence."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        metric, label = self.choice.metric, self.choice.label
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        bars, curve = figure.subplots(1, 2)
        names = [" + ".join(subset.modalities) for subset in self.subsets]
        bars.barh(names, [getattr(subset.measures, metric) for subset in self.subsets])
        bars.invert_yaxis()
        bars.set_xlabel(label)
        bars.set_title("with only these modalities")
        curve.errorbar(
            [absence.rate for absence in self.absences],
            [getattr(absence.means, metric) for absence in self.absences],
            yerr=[absence.deviation for absence in self.absences],
            marker=".",
            capsize=3,
        )
        curve.set_xlabel("rate at which a sample lacks a modality")
        curve.set_ylabel(label)
        curve.set_title("absent at random")
        FigureCanvasAgg(figure)
        return figure


def evaluated(
    model: PreTrainedModel, batches: DataLoader[Any], scoring: Scoring[Measured], draws: int = 5, seed: int = 0
) -> Missing[Measured]:
    """Scores the model on every subset of its modalities, and at each rate of absence."""
    subsets = tuple(on_subsets(model, batches, scoring))
    return Missing(subsets, tuple(at_random(model, batches, scoring, draws=draws, seed=seed)), scoring.choice)


def on_subsets(
    model: PreTrainedModel, batches: DataLoader[Any], scoring: Scoring[Measured]
) -> Iterator[Subset[Measured]]:
    """Scores the model on every non-empty subset of its modalities, the largest first."""
    names = tuple(model.config.modalities)
    for size in range(len(names), 0, -1):
        for chosen in combinations(names, size):
            yield Subset(chosen, measured(model, batches, _only(chosen), scoring))


def at_random(
    model: PreTrainedModel,
    batches: DataLoader[Any],
    scoring: Scoring[Measured],
    rates: Sequence[float] = RATES,
    draws: int = 5,
    seed: int = 0,
) -> Iterator[Absence[Measured]]:
    """Scores the model at each rate of absence, ``draws`` times if the rate is above 0.

    Draw k uses the same random numbers at every rate.
    """
    names = tuple(model.config.modalities)
    for rate in rates:
        change = _Absence(ModalityDropout(names, rate).train())
        scores = []
        for draw in range(draws if rate else 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + draw)
                scores.append(measured(model, batches, change, scoring))
        deviation = pstdev(getattr(score, scoring.choice.metric) for score in scores)
        yield Absence(rate, mean_measures(scores), deviation)


@dataclass(frozen=True)
class _Absence:
    """Masks modalities at random and leaves the inputs as they are."""

    dropout: ModalityDropout

    def __call__(self, inputs: Mapping[str, Any], mask: Masks) -> tuple[Mapping[str, Any], Masks]:
        return inputs, self.dropout(inputs, mask)


def _only(names: Sequence[str]) -> Change:
    return lambda inputs, mask: ({name: inputs[name] for name in names}, {name: mask[name] for name in names})
