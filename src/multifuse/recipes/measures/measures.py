"""What all measures have in common: how they are shown, and which one the best epoch is chosen by."""

from dataclasses import dataclass
from typing import Protocol


class Measures(Protocol):
    """A frozen dataclass of numbers, each of which measures predictions against labels."""

    def as_dict(self) -> dict[str, float | None]:
        """Returns the measures for JSON, an undefined one as ``None``."""


@dataclass(frozen=True)
class Shown:
    """How a measure is printed: as a percentage or as a number."""

    name: str
    label: str
    percent: bool = True

    def text(self, value: float, digits: int = 2) -> str:
        """Formats a value, with ``digits`` decimals for a percentage and two more for a number."""
        return f"{100 * value:.{digits}f} %" if self.percent else f"{value:.{digits + 2}f}"


@dataclass(frozen=True)
class Choice:
    """The measure on validation data by which the best epoch is chosen, and the measures that are shown."""

    metric: str
    greater_is_better: bool
    title: str
    """Title of the table of measures."""
    shown: tuple[Shown, ...]
    """The rows of the table."""
    each_epoch: tuple[str, ...]
    """Names of the measures that are shown for each epoch."""

    @property
    def label(self) -> str:
        """The label of the measure by which the best epoch is chosen."""
        return self.of(self.metric).label

    def of(self, name: str) -> Shown:
        """Returns a measure by the name of its field."""
        return next(measure for measure in self.shown if measure.name == name)
