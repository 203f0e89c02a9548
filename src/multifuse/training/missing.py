"""What a trained model keeps of its measures when modalities are missing: on every subset, and at random."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.training.scores import Change, Masks, MeanScores, averaged, measured
from multifuse.training.sentiment import SentimentMeasures

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Subset:
    """The measures with these modalities alone."""

    modalities: tuple[str, ...]
    measures: SentimentMeasures


@dataclass(frozen=True)
class Absence(MeanScores):
    """Each modality of each sample absent with this rate, never all: means over the draws, and the MAE's deviation."""

    rate: float


@dataclass(frozen=True)
class Missing:
    """A model's measures with modalities missing."""

    subsets: tuple[Subset, ...]
    absences: tuple[Absence, ...]

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "subsets": [{"modalities": own.modalities, **own.measures.as_dict()} for own in self.subsets],
            "absences": [own.as_dict() for own in self.absences],
        }

    def tables(self) -> Iterator["Table"]:
        """What is printed."""
        from rich.table import Table

        by_subset = Table("modalities", "MAE", "Corr", "Acc-2 non0", title="With these modalities alone")
        for own in self.subsets:
            scores = own.measures
            by_subset.add_row(
                " + ".join(own.modalities), f"{scores.mae:.4f}", f"{scores.corr:.4f}", f"{100 * scores.acc2_non0:.2f} %"
            )
        yield by_subset
        by_rate = Table("absent", "MAE", "Corr", "Acc-2 non0", title="Each modality of each sample absent at random")
        for rate in self.absences:
            by_rate.add_row(
                f"{100 * rate.rate:.0f} %",
                f"{rate.mae:.4f} +- {rate.mae_deviation:.4f}",
                f"{rate.corr:.4f}",
                f"{100 * rate.acc2_non0:.2f} %",
            )
        yield by_rate

    def figure(self) -> "Figure":
        """The MAE on every subset, and against the rate of absence."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 3.6), layout="constrained")
        bars, curve = figure.subplots(1, 2)
        bars.barh([" + ".join(own.modalities) for own in self.subsets], [own.measures.mae for own in self.subsets])
        bars.invert_yaxis()
        bars.set_xlabel("MAE")
        bars.set_title("with these modalities alone")
        curve.errorbar(
            [own.rate for own in self.absences],
            [own.mae for own in self.absences],
            yerr=[own.mae_deviation for own in self.absences],
            marker=".",
            capsize=3,
        )
        curve.set_xlabel("rate at which a sample lacks a modality")
        curve.set_ylabel("MAE")
        curve.set_title("absent at random")
        FigureCanvasAgg(figure)
        return figure


def evaluated(model: PreTrainedModel, batches: DataLoader[Any], draws: int = 5, seed: int = 0) -> Missing:
    """Scores the model on every subset of its modalities, and at each rate of absence."""
    return Missing(tuple(on_subsets(model, batches)), tuple(at_random(model, batches, draws=draws, seed=seed)))


def on_subsets(model: PreTrainedModel, batches: DataLoader[Any]) -> Iterator[Subset]:
    """Scores the model on every subset of its modalities, the largest first."""
    names = tuple(model.config.modalities)
    for size in range(len(names), 0, -1):
        for chosen in combinations(names, size):
            yield Subset(chosen, measured(model, batches, _only(chosen)))


def at_random(
    model: PreTrainedModel, batches: DataLoader[Any], rates: Sequence[float] = RATES, draws: int = 5, seed: int = 0
) -> Iterator[Absence]:
    """Scores the model at each rate of absence, ``draws`` times; draw k has the same numbers at every rate."""
    names = tuple(model.config.modalities)
    for rate in rates:
        absence = _Absence(ModalityDropout(names, rate).train())
        scores = []
        for draw in range(draws if rate else 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + draw)
                scores.append(measured(model, batches, absence))
        yield Absence(rate=rate, **averaged(scores))


@dataclass(frozen=True)
class _Absence:
    dropout: ModalityDropout

    def __call__(self, inputs: Mapping[str, Any], mask: Masks) -> tuple[Mapping[str, Any], Masks]:
        return inputs, self.dropout(inputs, mask)


def _only(names: Sequence[str]) -> Change:
    return lambda inputs, mask: ({name: inputs[name] for name in names}, {name: mask[name] for name in names})
