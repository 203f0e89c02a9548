"""What a trained model keeps of its measures when modalities are missing: on every subset, and at random."""

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
    """The measures with these modalities alone."""

    modalities: tuple[str, ...]
    measures: Measured


@dataclass(frozen=True)
class Absence(Generic[Measured]):
    """Each modality of each sample absent with this rate, never all."""

    rate: float
    means: Measured
    """Over the draws."""
    deviation: float
    """Over the draws, of the measure that epochs are chosen by."""


@dataclass(frozen=True)
class Missing(Generic[Measured]):
    """A model's measures with modalities missing."""

    subsets: tuple[Subset[Measured], ...]
    absences: tuple[Absence[Measured], ...]
    choice: Choice

    def report(self) -> dict[str, Any]:
        """For JSON."""
        deviation = f"{self.choice.metric}_deviation"
        return {
            "subsets": [{"modalities": own.modalities, **own.measures.as_dict()} for own in self.subsets],
            "absences": [{"rate": own.rate, **own.means.as_dict(), deviation: own.deviation} for own in self.absences],
        }

    def tables(self) -> Iterator["Table"]:
        """What is printed."""
        from rich.table import Table

        shown = [self.choice.of(name) for name in self.choice.each_epoch]
        labels = [own.label for own in shown]
        by_subset = Table("modalities", *labels, title="With these modalities alone")
        for own in self.subsets:
            by_subset.add_row(
                " + ".join(own.modalities), *(each.text(getattr(own.measures, each.name)) for each in shown)
            )
        yield by_subset
        by_rate = Table("absent", *labels, title="Each modality of each sample absent at random")
        for rate in self.absences:
            cells = [each.text(getattr(rate.means, each.name)) for each in shown]
            at = self.choice.each_epoch.index(self.choice.metric)
            cells[at] += f" +- {shown[at].text(rate.deviation)}"
            by_rate.add_row(f"{100 * rate.rate:.0f} %", *cells)
        yield by_rate

    def figure(self) -> "Figure":
        """The measure that epochs are chosen by, on every subset and against the rate of absence."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        metric, label = self.choice.metric, self.choice.label
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        bars, curve = figure.subplots(1, 2)
        names = [" + ".join(own.modalities) for own in self.subsets]
        bars.barh(names, [getattr(own.measures, metric) for own in self.subsets])
        bars.invert_yaxis()
        bars.set_xlabel(label)
        bars.set_title("with these modalities alone")
        curve.errorbar(
            [own.rate for own in self.absences],
            [getattr(own.means, metric) for own in self.absences],
            yerr=[own.deviation for own in self.absences],
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
    """Scores the model on every subset of its modalities, the largest first."""
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
    """Scores the model at each rate of absence, ``draws`` times; draw k has the same numbers at every rate."""
    names = tuple(model.config.modalities)
    for rate in rates:
        absence = _Absence(ModalityDropout(names, rate).train())
        tries = []
        for draw in range(draws if rate else 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + draw)
                tries.append(measured(model, batches, absence, scoring))
        yield Absence(rate, mean_measures(tries), pstdev(getattr(own, scoring.choice.metric) for own in tries))


@dataclass(frozen=True)
class _Absence:
    dropout: ModalityDropout

    def __call__(self, inputs: Mapping[str, Any], mask: Masks) -> tuple[Mapping[str, Any], Masks]:
        return inputs, self.dropout(inputs, mask)


def _only(names: Sequence[str]) -> Change:
    return lambda inputs, mask: ({name: inputs[name] for name in names}, {name: mask[name] for name in names})
