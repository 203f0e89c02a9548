"""What a training step of each model costs: its parameters and its time, measured by turns in one process."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks.evidence.plan import CLCR, FUSIONS
from benchmarks.evidence.sets import planted_set
from benchmarks.timing import in_turns
from multifuse.recipes.data.features.planted_settings import SETTINGS, PlantedSettings
from multifuse.recipes.jobs.sentiment import SentimentJob

BATCH = 32


def cost_table(
    settings: PlantedSettings = SETTINGS["default"], models: Sequence[str] = FUSIONS, seconds: float = 20.0
) -> str:
    """Times a step of every model (forward, backward and AdamW) on the first training samples of a planted set.

    Args:
        settings: the planted set.
        models: names of `multifuse train --model`; CLCR, to which the others are compared, must be one of them.
        seconds: how long the measurement takes, about.

    Returns:
        The table in Markdown: the number of parameters that are trained, and the medians of the times with their first
        and last deciles.
    """
    networks, steps = {}, {}
    for name in models:
        networks[name], steps[name] = training_step(name, settings)
    timings = in_turns(steps, seconds)
    lines = ["| model | trained parameters | ms a step | of CLCR's |", "|---|---|---|---|"]
    for name, timing in timings.items():
        size = trained_parameters(networks[name])
        median, low, high = (1000 * value for value in (timing.median, timing.low, timing.high))
        share = timing.median / timings[CLCR].median
        lines.append(f"| {name} | {size:,} | {median:.1f} ({low:.1f} to {high:.1f}) | {share:.2f} |")
    return "\n".join(lines) + "\n"


def trained_parameters(model: PreTrainedModel) -> int:
    """Counts the parameters that the last backward pass reached: the baselines have maps of levels they do not read."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.grad is not None)


def training_step(model_name: str, settings: PlantedSettings) -> tuple[PreTrainedModel, Callable[[], None]]:
    """Returns a new model, and a function that trains it for a step on the same batch each time it is called."""
    with tempfile.TemporaryDirectory() as folder:
        job = SentimentJob(output=Path(folder) / "run", data=planted_set(settings).file(Path(folder)), model=model_name)
        data = job.read_given()
    assert data is not None
    recipe = job.named_recipe("default")
    torch.manual_seed(0)
    learning = job.learning(recipe, data)
    train = learning.splits["train"]
    batch = learning.processor.collator([train[index] for index in range(min(BATCH, settings.sizes["train"]))])
    model = learning.model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)

    def step() -> None:
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()

    return model, step
