"""The figure of a run, per epoch: training curves, and level and modality weights and private gates on ``valid``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multifuse.recipes.files import whole
from multifuse.recipes.measures.measures import Choice


def draw(history: Sequence[dict[str, Any]], path: Path, choice: Choice) -> None:
    """Draws Trainer's log history to a PNG file, which is written atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 3.6), layout="constrained")
    curves, levels, modalities, gates = figure.subplots(1, 4)
    name = f"eval_{choice.metric}"
    evaluations = [entry for entry in history if name in entry]
    epochs = [entry["epoch"] for entry in evaluations]
    training = [(entry["epoch"], entry["loss"]) for entry in history if "loss" in entry]
    curves.plot(*zip(*training, strict=True), marker=".", label="train loss")
    curves.plot(epochs, [entry[name] for entry in evaluations], marker=".", label=f"valid {choice.label}")
    curves.set_title("training")
    for axis, prefix, entropy, title in (
        (levels, "eval_level_weight_", "eval_level_entropy", "level weights (valid mean)"),
        (modalities, "eval_modality_weight_", "eval_modality_entropy", "modality weights (valid mean)"),
        (gates, "eval_private_gate_", None, "private gates (valid mean)"),
    ):
        for weight in sorted({key for entry in evaluations for key in entry if key.startswith(prefix)}):
            label = weight.removeprefix(prefix)
            axis.plot(epochs, [entry[weight] for entry in evaluations], marker=".", label=label)
        if axis.lines and entropy is not None:
            values = [entry[entropy] for entry in evaluations]
            axis.plot(epochs, values, color="grey", linestyle="dotted", label="entropy")
        axis.set_title(title)
        axis.set_ylim(0, 1.02)
    for axis in (curves, levels, modalities, gates):
        axis.set_xlabel("epoch")
        if axis.lines:
            axis.legend()
    FigureCanvasAgg(figure)
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
