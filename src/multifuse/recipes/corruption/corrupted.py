"""Scores a trained model on corrupted inputs: with noisy features, dropped tokens or one modality delayed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from multifuse.recipes.corruption.corruptions import Corruption, FeatureNoise, TimeShift, TokenDrop
from multifuse.recipes.data.features.mmsa import MMSASplit
from multifuse.recipes.measures.scores import SENTIMENT, Change, MeanScores, averaged, measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

KINDS: dict[str, str] = {
    "noise": "noise, in standard deviations of each feature",
    "drop": "rate of dropped tokens",
    "shift": "delay of one modality, in tokens",
}


def _corruption(kind: str, level: float, modality: str, spread: Mapping[str, Tensor]) -> Corruption:
    if kind == "noise":
        return FeatureNoise(level, spread)
    return TokenDrop(level) if kind == "drop" else TimeShift(modality, level)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Levels:
    """The levels of each corruption in ascending order; level 0, which changes nothing, is always included.

    Raises:
        ValueError: if a corruption does not accept a level.
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


class LevelError(ValueError):
    """Raised if a model cannot be scored at a level of a corruption."""

    def __init__(self, kind: str, level: float, reason: str) -> None:
        super().__init__(f"{kind} {level:g}: {reason}")
        self.kind, self.level, self.reason = kind, level, reason


@dataclass(frozen=True)
class LevelScores(MeanScores):
    """Mean scores at one level: over the draws or, for a delay, over the modalities that are delayed in turn."""

    kind: Literal["noise", "drop", "shift"]
    level: float


@dataclass(frozen=True)
class CorruptionScores:
    """A model's measures at every level of every corruption that can be applied to its data."""

    corrupted: tuple[LevelScores, ...]
    late: tuple[str, ...]
    """The modalities that were delayed in turn: those of more than one token; none if there is only one modality."""

    def of(self, kind: str) -> tuple[LevelScores, ...]:
        """Returns the scores of one kind of corruption."""
        return tuple(scores for scores in self.corrupted if scores.kind == kind)

    def report(self) -> dict[str, Any]:
        """Returns the scores for JSON."""
        return {"late": self.late, "corrupted": [scores.as_dict() for scores in self.corrupted]}

    def tables(self) -> Iterator["Table"]:
        """Yields the printed tables, one per corruption."""
        from rich.table import Table

        for kind, label in KINDS.items():
            table = Table("level", "MAE", "Corr", "Acc-2 non0", title=label.capitalize())
            for scores in self.of(kind):
                mae = f"{scores.mae:.4f} +- {scores.mae_deviation:.4f}"
                table.add_row(f"{scores.level:g}", mae, f"{scores.corr:.4f}", f"{100 * scores.acc2_non0:.2f} %")
            if table.row_count:
                yield table

    def figure(self) -> "Figure":
        """Draws the MAE against the level of each corruption."""
        return curves({"": [self]})


def deviations(train: MMSASplit) -> dict[str, Tensor]:
    """Returns the standard deviation of every stored feature over the real tokens of a split, (D,) per modality."""
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
    """Scores a model at each level; draw k uses the same random numbers at every level and for every model.

    Args:
        model: the model to score.
        batches: batches of `Collator`, in a fixed order.
        spread: the `deviations` of the features.
        levels: the levels of each corruption.
        draws: number of draws of noise and of dropped tokens, at each level above 0.
        seed: seed of the first draw.

    Raises:
        LevelError: a delay that makes a sequence longer than the model's positions, before anything is scored;
            predictions that are not finite.
    """
    lengths = _lengths(batches)
    late = tuple(name for name, length in lengths.items() if length > 1) if len(lengths) > 1 else ()
    longest = max((lengths[name] for name in late), default=0) + max(levels.shift)
    if late and model.config.positions == "learned" and longest > (positions := model.config.max_positions):
        reason = f"inputs have {longest} tokens, more than max_positions={positions}"
        raise LevelError("shift", max(levels.shift), reason)
    level_scores = []
    for kind in KINDS:
        for level in getattr(levels, kind):
            names = late if kind == "shift" else ("",) * (draws if level else 1)
            changes = [_seeded(_corruption(kind, level, name, spread), seed + k) for k, name in enumerate(names)]
            try:
                scores = [measured(model, batches, change, SENTIMENT) for change in changes]
            except ValueError as error:
                raise LevelError(kind, level, str(error).split(";")[0]) from None  # then comes advice for code
            if scores:
                level_scores.append(LevelScores(kind=kind, level=level, **averaged(scores)))  # type: ignore[arg-type]
    return CorruptionScores(tuple(level_scores), late)


def _lengths(batches: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Returns the largest number of tokens of every modality."""
    longest: dict[str, int] = {}
    for batch in batches:
        for name, values in batch["inputs"].items():
            longest[name] = max(longest.get(name, 0), values.shape[1])
    return longest


def _seeded(corruption: Corruption, seed: int) -> Change:
    """Returns a corruption with its random numbers, for one pass over the batches."""
    generator = torch.Generator().manual_seed(seed)
    return lambda inputs, mask: corruption(inputs, mask, generator)


def curves(runs: Mapping[str, Sequence[CorruptionScores]]) -> "Figure":
    """Draws the MAE and its rise above that on clean inputs, for models given by label with one or more runs each.

    A line is the mean over the runs, and its band their standard deviation; for a single run, that over its draws.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = next(iter(runs.values()))[0]
    kinds = [kind for kind in KINDS if first.of(kind)]
    figure = Figure(figsize=(4 * len(kinds), 6), layout="constrained")
    axes = figure.subplots(2, len(kinds), squeeze=False, sharex="col", sharey="row")
    for column, kind in enumerate(kinds):
        for row, rise in enumerate((False, True)):
            for label, label_runs in runs.items():
                _draw(axes[row, column], label, [run.of(kind) for run in label_runs], rise)
        axes[1, column].set_xlabel(KINDS[kind])
    axes[0, 0].set_ylabel("MAE")
    axes[1, 0].set_ylabel("rise of the MAE")
    if len(runs) > 1:
        axes[0, 0].legend()
    FigureCanvasAgg(figure)
    return figure


def _draw(axis: Any, label: str, runs: Sequence[Sequence[LevelScores]], rise: bool) -> None:
    levels = [scores.level for scores in runs[0]]
    maes = torch.tensor([[scores.mae for scores in run] for run in runs], dtype=torch.float64)
    curves_of_runs = maes - maes[:, :1] if rise else maes
    mean = curves_of_runs.mean(0)
    deviation_of_draws = torch.tensor([scores.mae_deviation for scores in runs[0]], dtype=torch.float64)
    band = curves_of_runs.std(0) if len(runs) > 1 else deviation_of_draws
    (line,) = axis.plot(levels, mean.tolist(), marker=".", label=label)
    axis.fill_between(levels, (mean - band).tolist(), (mean + band).tolist(), alpha=0.2, color=line.get_color())
