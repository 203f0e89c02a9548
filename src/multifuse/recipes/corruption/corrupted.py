"""What a trained model keeps of its measures when features are noisy, tokens are lost, or a modality is late."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from multifuse.recipes.corruption.corruptions import Corruption, FeatureNoise, Inputs, Masks, TimeShift, TokenDrop
from multifuse.recipes.data.features.mmsa import MMSASplit
from multifuse.recipes.measures.scores import SENTIMENT, MeanScores, averaged, measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

KINDS: dict[str, str] = {
    "noise": "noise, in each feature's deviation",
    "drop": "rate of dropped tokens",
    "shift": "delay of one modality, in tokens",
}


def _corruption(kind: str, level: float, modality: str, spread: Mapping[str, Tensor]) -> Corruption:
    if kind == "noise":
        return FeatureNoise(level, spread)
    return TokenDrop(level) if kind == "drop" else TimeShift(modality, level)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Levels:
    """How strong the corruptions are; each begins with 0, the batches as they are.

    Raises:
        ValueError: a level that a corruption refuses.
    """

    noise: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
    drop: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    shift: tuple[int, ...] = (0, 1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        for kind in KINDS:
            for level in getattr(self, kind):
                try:
                    _corruption(kind, level, "", {})
                except ValueError as error:
                    raise ValueError(f"{kind}: {error}") from None
            object.__setattr__(self, kind, tuple(sorted({0, *getattr(self, kind)})))


@dataclass(frozen=True)
class LevelScores(MeanScores):
    """Means over the draws, of a delay over the modalities that are late in turn; the MAE's deviation over the same."""

    kind: Literal["noise", "drop", "shift"]
    level: float


@dataclass(frozen=True)
class CorruptionScores:
    """A model's measures at every level of every corruption that its data allow."""

    corrupted: tuple[LevelScores, ...]
    late: tuple[str, ...]
    """The modalities that were late in turn: those of more than one token. Without another modality, none."""

    def of(self, kind: str) -> tuple[LevelScores, ...]:
        return tuple(own for own in self.corrupted if own.kind == kind)

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return {"late": self.late, "corrupted": [own.as_dict() for own in self.corrupted]}

    def tables(self) -> Iterator["Table"]:
        """What is printed, a table a corruption."""
        from rich.table import Table

        for kind, label in KINDS.items():
            table = Table("level", "MAE", "Corr", "Acc-2 non0", title=label.capitalize())
            for own in self.of(kind):
                mae = f"{own.mae:.4f} +- {own.mae_deviation:.4f}"
                table.add_row(f"{own.level:g}", mae, f"{own.corr:.4f}", f"{100 * own.acc2_non0:.2f} %")
            if table.row_count:
                yield table

    def figure(self) -> "Figure":
        """The measures as curves."""
        return curves({"": [self]})


def deviations(train: MMSASplit) -> dict[str, Tensor]:
    """By modality (D,), every stored feature's standard deviation over the real tokens of a split."""
    return {
        name: torch.from_numpy(sequence.values[sequence.mask].std(axis=0))
        for name, sequence in train.features.items()
        if sequence.mask.any()
    }


def evaluated(
    model: PreTrainedModel,
    batches: DataLoader[Any],
    spread: Mapping[str, Tensor],
    levels: Levels = Levels(),
    draws: int = 3,
    seed: int = 0,
) -> CorruptionScores:
    """Scores a model at each level; draw k has the same random numbers at every level and for every model.

    Args:
        batches: of `Collator`, in a fixed order.
        spread: the features' `deviations`.
        levels: what to try.
        draws: of noise and of dropped tokens, at each level above 0.
        seed: of the first draw.
    """
    late = _late(batches)
    scores = []
    for kind in KINDS:
        for level in getattr(levels, kind):
            names = late if kind == "shift" else ("",) * (draws if level else 1)
            tries = [_Seeded(_corruption(kind, level, name, spread), seed + k) for k, name in enumerate(names)]
            found = [measured(model, batches, own.restarted(), SENTIMENT) for own in tries]
            if found:
                scores.append(LevelScores(kind=kind, level=level, **averaged(found)))  # type: ignore[arg-type]
    return CorruptionScores(tuple(scores), late)


def _late(batches: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    longest: dict[str, int] = {}
    for batch in batches:
        for name, values in batch["inputs"].items():
            longest[name] = max(longest.get(name, 0), values.shape[1])
    return tuple(name for name, length in longest.items() if length > 1) if len(longest) > 1 else ()


@dataclass(frozen=True)
class _Seeded:
    """A corruption with random numbers of its own, which begin anew with every pass over the batches."""

    corruption: Corruption
    seed: int
    generator: torch.Generator | None = None

    def restarted(self) -> "_Seeded":
        return replace(self, generator=torch.Generator().manual_seed(self.seed))

    def __call__(self, inputs: Inputs, mask: Masks) -> tuple[Inputs, Masks]:
        assert self.generator is not None
        return self.corruption(inputs, mask, self.generator)


def curves(runs: Mapping[str, Sequence[CorruptionScores]]) -> "Figure":
    """Draws the MAE, and how far it rises from the clean one, of models by label, each with one run or more.

    A line is the mean over the runs, its band their deviation; of a single run, that of its draws.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = next(iter(runs.values()))[0]
    kinds = [kind for kind in KINDS if first.of(kind)]
    figure = Figure(figsize=(4 * len(kinds), 6), layout="constrained")
    axes = figure.subplots(2, len(kinds), squeeze=False, sharex="col", sharey="row")
    for column, kind in enumerate(kinds):
        for row, rise in enumerate((False, True)):
            for label, own in runs.items():
                _draw(axes[row, column], label, [run.of(kind) for run in own], rise)
        axes[1, column].set_xlabel(KINDS[kind])
    axes[0, 0].set_ylabel("MAE")
    axes[1, 0].set_ylabel("MAE, above the clean one")
    if len(runs) > 1:
        axes[0, 0].legend()
    FigureCanvasAgg(figure)
    return figure


def _draw(axis: Any, label: str, runs: Sequence[Sequence[LevelScores]], rise: bool) -> None:
    levels = [own.level for own in runs[0]]
    maes = torch.tensor([[own.mae for own in run] for run in runs], dtype=torch.float64)
    spread = maes - maes[:, :1] if rise else maes
    middle = spread.mean(0)
    of_draws = torch.tensor([own.mae_deviation for own in runs[0]], dtype=torch.float64)
    band = spread.std(0) if len(runs) > 1 else of_draws
    (line,) = axis.plot(levels, middle.tolist(), marker=".", label=label)
    axis.fill_between(levels, (middle - band).tolist(), (middle + band).tolist(), alpha=0.2, color=line.get_color())
