"""The figure of a run: training curves, and level and modality weights on the validation split, per epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multifuse.recipes.files import whole
from multifuse.recipes.measures.measures import Choice


def draw(history: Sequence[dict[str, Any]], path: Path, choice: Choice) -> None:
    """Draws Trainer's log history to a PNG file, which is written atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    curves, levels, modalities = figure.subplots(1, 3)
    name = f"eval_{choice.metric}"
    evaluations = [entry for entry in history if name in entry]
    epochs = [entry["epoch"] for entry in evaluations]
    training = [(entry["epoch"], entry["loss"]) for entry in history if "loss" in entry]
    curves.plot(*zip(*training, strict=True), marker=".", label="train loss")
    curves.plot(epochs, [entry[name] for entry in evaluations], marker=".", label=f"valid {choice.label}")
    curves.set_title("training")
    for axis, prefix, title in (
        (levels, "eval_level_weight_", "level weights (valid mean)"),
        (modalities, "eval_modality_weight_", "modality weights (valid mean)"),
    ):
        for weight in sorted({key for entry in evaluations for key in entry if key.startswith(prefix)}):
            label = weight.removeprefix(prefix)
            axis.plot(epochs, [entry[weight] for entry in evaluations], marker=".", label=label)
        axis.set_title(title)
        axis.set_ylim(0, 1)
    for axis in (curves, levels, modalities):
        axis.set_xlabel("epoch")
        if axis.lines:
            axis.legend()
    FigureCanvasAgg(figure)
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
