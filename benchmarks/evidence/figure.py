"""The figure of the evidence: CLCR's weights, gates and score by epoch, one row of panels per data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.evidence.plan import CLCR, MODELS, Section, rows
from benchmarks.evidence.tables import by_seed, score, score_name
from multifuse.recipes.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = "weights.png"
Epochs = Sequence[Mapping[str, float]]
"""What was logged on ``valid`` after every epoch of a run."""


def draw(sections: Sequence[Section], results: Path) -> Path | None:
    """Draws the figure into the results' folder, and returns its path; ``None`` if CLCR has not been run."""
    runs = {section: _runs(section, results) for section in sections}
    runs = {section: epochs for section, epochs in runs.items() if epochs}
    if not runs:
        return None
    with whole(results / FIGURE) as partial:
        weights(runs).savefig(partial, format="png", dpi=80)
    return results / FIGURE


def _runs(section: Section, results: Path) -> list[Epochs]:
    ours = [row for row in rows(section, MODELS, results) if row.label == CLCR]
    return [run["epochs"] for row in ours for run in by_seed(row, results).values()]


def weights(runs: Mapping[Section, Sequence[Epochs]]) -> "Figure":
    """Draws what was logged on the runs of each section; a line is the mean over the seeds, its band the deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), 3, squeeze=False)
    for row, (section, epochs) in zip(axes, runs.items(), strict=True):
        _line(row[0], "omega, over levels", [[entry["level_entropy"] for entry in run] for run in epochs])
        _line(row[0], "beta, over modalities", [[entry["modality_entropy"] for entry in run] for run in epochs])
        for name in section.modalities:
            _line(row[1], name, [[entry[f"private_gate_{name}"] for entry in run] for run in epochs])
        _line(row[2], "valid", [[score(section.choice, entry) for entry in run] for run in epochs])
        row[0].set_ylabel(f"{section.data}\nentropy")
        row[1].set_ylabel("private gate")
        row[2].set_ylabel(f"valid {score_name(section.choice)}")
        row[0].legend()
        row[1].legend()
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    FigureCanvasAgg(figure)
    return figure


def _line(axis: Any, label: str, runs: Sequence[Sequence[float]]) -> None:
    """Draws the epochs that all runs have."""
    count = min(len(epochs) for epochs in runs)
    values = np.array([epochs[:count] for epochs in runs])
    mean, band = values.mean(axis=0), values.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(count)
    (line,) = axis.plot(range(1, count + 1), mean, marker=".", label=label)
    axis.fill_between(range(1, count + 1), mean - band, mean + band, alpha=0.2, color=line.get_color())
