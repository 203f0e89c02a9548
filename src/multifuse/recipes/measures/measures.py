"""What all measures have in common: how they are shown, and the one that an epoch is chosen by."""

from dataclasses import dataclass
from typing import Protocol


class Measures(Protocol):
    """A frozen dataclass of numbers, each a measure of predictions against labels."""

    def as_dict(self) -> dict[str, float | None]:
        """For JSON: an undefined measure is ``None``."""


@dataclass(frozen=True)
class Shown:
    """How a measure is printed: as a percentage, or as a number."""

    name: str
    label: str
    percent: bool = True

    def text(self, value: float, digits: int = 2) -> str:
        return f"{100 * value:.{digits}f} %" if self.percent else f"{value:.{digits + 2}f}"


@dataclass(frozen=True)
class Choice:
    """The measure on validation data that the epoch is chosen by, and what each epoch's line shows."""

    metric: str
    greater_is_better: bool
    title: str
    """Of the table of measures."""
    shown: tuple[Shown, ...]
    """The table's rows."""
    each_epoch: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name of the measure that the epoch is chosen by."""
        return self.of(self.metric).label

    def of(self, name: str) -> Shown:
        """A measure, by its field's name."""
        return next(shown for shown in self.shown if shown.name == name)
