"""What a run of MOSEI and of Kinetics-Sounds costs: python -m benchmarks.throughput.

By run: the steps that the recipe takes; the processor time of one training step (float32, AdamW) by part, in seconds
that other processes on the machine do not lengthen much; what a sample keeps for the backward pass, by formula and as
counted; and the memory of a step, by formula and at its peak. Inputs are random, with the shapes of the benchmark, and
encoders have random weights. Each run is measured in a process of its own (Linux). Options: --threads N, --runs NAME.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import BertConfig

from benchmarks.length_speed import added_at_peak
from benchmarks.step_speed import loss_of
from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.layers.temporal_conv import padded_length
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.jobs.recipe import CLIPS, CLIPS_PAPER, FEATURES, FINE_TUNING, PAPER, Recipe
from multifuse.recipes.trainer.trainer import build_optimizer

Batch = tuple[dict[str, Any], Tensor, dict[str, Tensor] | None]
MIB = 2**20


@dataclass(frozen=True)
class Run:
    """A run of a benchmark: its data, model and recipe, and the size of the batch that is measured here."""

    title: str
    samples: int
    recipe: Recipe
    modalities: Callable[[], dict[str, Any]]
    batch: Callable[[int], Batch]
    measured: int
    labels: int = 1

    def steps(self) -> int:
        """Returns the number of steps: those of an epoch, the last of which may be smaller, times the epochs."""
        return self.recipe.epochs * math.ceil(self.samples / self.recipe.batch_size)


@dataclass(frozen=True)
class Cost:
    """What a step of a run costs here; seconds are of the processor, bytes are counted unless they are a formula's."""

    parameters: int
    encoders: float
    fusion: float
    optimiser: float
    kept_by_backbones: float
    """Bytes for each sample, as the next two."""
    kept_elsewhere: float
    kept_by_formula: int
    kept_by_batch: float
    """Bytes that do not depend on the size of the batch: bases and covariances."""
    peak: float

    @property
    def seconds(self) -> float:
        return self.encoders + self.fusion + self.optimiser

    def memory(self, batch: int) -> float:
        """Returns the MiB of weights, gradients, AdamW's two means, and of what is kept for the backward pass."""
        of_samples = batch * (self.kept_by_backbones + self.kept_by_formula)
        return (16 * self.parameters + of_samples + self.kept_by_batch) / MIB


MOSEI_TOKENS, MOSEI_WIDTHS = 50, {"text": 768, "vision": 35, "audio": 74}


def _features() -> dict[str, Any]:
    return {name: {"encoder": "temporal_conv", "input_size": width} for name, width in MOSEI_WIDTHS.items()}


def _with_bert() -> dict[str, Any]:
    return {**_features(), "text": {"encoder": "text", "config": BertConfig().to_dict()}}


def _clips() -> dict[str, Any]:
    return {
        "audio": CLCRConfig.backbone_modality("audio", 1, "resnet-18"),
        "vision": CLCRConfig.backbone_modality("image", 3, "resnet-18"),
    }


def _mosei(size: int) -> Batch:
    inputs = {name: torch.randn(size, MOSEI_TOKENS, width) for name, width in MOSEI_WIDTHS.items()}
    return inputs, torch.randn(size), {name: torch.ones(size, MOSEI_TOKENS, dtype=torch.bool) for name in inputs}


def _mosei_ids(size: int) -> Batch:
    inputs, labels, mask = _mosei(size)
    return {**inputs, "text": torch.randint(1000, 30000, (size, MOSEI_TOKENS))}, labels, mask


def _ks(size: int) -> Batch:
    options = AUDIOVISUAL_SETS["ks"].options
    frames = torch.randn(size, options.frames, 3, options.frame_size, options.frame_size)
    return {"audio": torch.randn(size, 1, *options.spectrogram.shape), "vision": frames}, torch.arange(size), None


# The sizes of the training splits are those of docs/data.md.
RUNS = {
    "mosei": Run("MOSEI, stored features", 16326, FEATURES, _features, _mosei, 32),
    "mosei-bert": Run("MOSEI, an encoder of BERT's size", 16326, FINE_TUNING, _with_bert, _mosei_ids, 4),
    "ks": Run("Kinetics-Sounds, two ResNet-18", 13304, CLIPS, _clips, _ks, 2, labels=31),
}
PAPERS = {"MOSEI, the paper's recipe": (16326, PAPER), "Kinetics-Sounds, the paper's recipe": (13304, CLIPS_PAPER)}


def model_of(run: Run) -> CLCRForPrediction:
    """Returns the model of a run, with random weights."""
    torch.manual_seed(0)
    kind = {} if run.labels == 1 else {"num_labels": run.labels, "problem_type": "single_label_classification"}
    model: CLCRForPrediction = CLCRForPrediction(CLCRConfig(modalities=run.modalities(), **kind)).train()  # type: ignore[arg-type]
    return model


def timed_step(model: CLCRForPrediction, optimiser: torch.optim.Optimizer, batch: Batch) -> tuple[float, float, float]:
    """Takes a step; returns the processor seconds of the encoders, of the rest of the model, and of the optimiser.

    The graph is cut behind the encoders; their backward pass runs after that of the rest.
    """
    inputs, labels, mask = batch
    hierarchy = model.clcr.hierarchy
    clock = [time.process_time()]
    levels = hierarchy(inputs, mask)
    clock.append(time.process_time())
    leaves = [{name: values.detach().requires_grad_() for name, values in level.items()} for level in levels]
    with patch.object(hierarchy, "forward", lambda *_: leaves):
        loss_of(model, inputs, labels, mask).backward()
    clock.append(time.process_time())
    outputs = [values for level in levels for values in level.values()]
    torch.autograd.backward(outputs, [leaf.grad for level in leaves for leaf in level.values()])
    clock.append(time.process_time())
    optimiser.step()
    optimiser.zero_grad()
    clock.append(time.process_time())
    forward, fusion, backward, update = (after - before for before, after in pairwise(clock))
    return forward + backward, fusion, update


def kept(model: CLCRForPrediction, batch: Batch) -> tuple[int, int]:
    """Returns the bytes that a forward pass keeps for the backward pass: in pretrained models, and elsewhere.

    Weights are not counted; a tensor that both keep is counted once, where it is kept first.
    """
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes: dict[int, tuple[bool, int]] = {}
    alive, inside = [], [False]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes.setdefault(storage.data_ptr(), (inside[0], storage.nbytes()))
            alive.append(tensor)  # else its address may be used again
        return tensor

    inputs, labels, mask = batch
    with _marked(model, inside), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model, inputs, labels, mask)
    by_place = [sum(size for place, size in sizes.values() if place is within) for within in (True, False)]
    return by_place[0], by_place[1]


@contextmanager
def _marked(model: CLCRForPrediction, inside: list[bool]) -> Iterator[None]:
    """Sets ``inside`` while a pretrained model is running."""
    handles = []
    for name in model.clcr.hierarchy.modalities:
        encoder = getattr(model.clcr.hierarchy.encoder(name), "model", None)
        if isinstance(encoder, nn.Module):
            handles.append(encoder.register_forward_pre_hook(lambda *_: inside.__setitem__(0, True)))
            handles.append(encoder.register_forward_hook(lambda *_: inside.__setitem__(0, False)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def kept_by_formula(config: CLCRConfig, tokens: Mapping[str, int], widths: Mapping[str, int], size: int = 4) -> int:
    """Returns the bytes that a sample keeps outside pretrained models, ``size`` for each number.

    A token keeps its D features, and at every level ``8 d + 8 r_s + 2 r_p`` numbers: 6 d of them in a stage of the
    convolutions, 2 d before and behind the LayerNorm of the hierarchy, the rest in the exchange and the regularisers.
    A stage keeps more where it pads the sequence. Of a text encoder, which has no such stages, a token keeps D numbers
    at every level in place of 6 d. Masks, and weights of tokens, are left out.
    """
    assert config.modalities is not None
    dim, levels = config.hidden_size, config.num_levels
    fusion = levels * (2 * dim + 8 * config.shared_rank + 2 * config.private_rank)
    numbers = 0
    for name, count in tokens.items():
        if config.modalities[name]["encoder"] == "text":
            numbers += count * (levels * widths[name] + fusion)
        else:
            stages = sum(_rows_of_stage(count, 4**level) for level in range(levels))
            numbers += count * (widths[name] + fusion) + dim * stages
    return size * numbers


def _rows_of_stage(count: int, dilation: int) -> int:
    """Returns how many rows of d numbers a stage keeps, 6 per token where nothing is padded."""
    padded = padded_length(torch.device("cpu"), count, dilation)
    steps = [min(padded, step) for step in (dilation, 2 * dilation)]
    # The input of a convolution, with zeros at both ends where it is shorter than three steps, and its output.
    filtered = sum(padded + (padded + 2 * step if padded < 3 * step else padded) for step in steps)
    return 2 * count + filtered


def _formula(model: CLCRForPrediction, batch: Batch) -> int:
    """Returns what the formula gives for a sample of a batch, whose tokens are counted in a forward pass."""
    hierarchy = model.clcr.hierarchy
    with torch.no_grad():
        (first, *_) = hierarchy(batch[0], batch[2])
    widths = {name: _features_of(hierarchy.encoder(name)) for name in first}
    return kept_by_formula(model.config, {name: tokens.shape[1] for name, tokens in first.items()}, widths)


def _features_of(encoder: nn.Module) -> int:
    levels: Any = getattr(encoder, "levels", encoder)
    return int(getattr(levels, "input_dim", levels.output_dim))


def cost(run: Run) -> Cost:
    """Measures a step of a run."""
    results: list[tuple[float, float, float]] = []

    def measured() -> None:
        model = model_of(run)
        optimiser = build_optimizer(model, run.recipe, run.recipe.lr)
        timed_step(model, optimiser, run.batch(2))  # makes the optimiser's means
        results.append(timed_step(model, optimiser, run.batch(run.measured)))

    small = model_of(RUNS["mosei"])  # loads what torch loads when it is first used
    timed_step(small, build_optimizer(small, FEATURES, FEATURES.lr), _mosei(2))
    peak = added_at_peak(measured)
    model = model_of(run)
    two, four = (kept(model, run.batch(size)) for size in (2, 4))
    in_backbones, elsewhere = ((more - less) / 2 for less, more in zip(two, four, strict=True))
    encoders, fusion, update = results[0]
    return Cost(
        parameters=sum(weight.numel() for weight in model.parameters()),
        encoders=encoders,
        fusion=fusion,
        optimiser=update,
        kept_by_backbones=in_backbones,
        kept_elsewhere=elsewhere,
        kept_by_formula=_formula(model, run.batch(2)),
        kept_by_batch=sum(two) - 2 * (in_backbones + elsewhere),
        peak=peak,
    )


def steps_table() -> str:
    """Returns the number of steps of every run, in Markdown."""
    lines = ["| run | samples | batch | steps of an epoch | epochs | steps |", "|---" * 6 + "|"]
    recipes = {run.title: (run.samples, run.recipe) for run in RUNS.values()} | PAPERS
    for title, (samples, recipe) in recipes.items():
        epoch = math.ceil(samples / recipe.batch_size)
        cells = [title, f"{samples:,}", f"{recipe.batch_size}", f"{epoch:,}", f"{recipe.epochs}"]
        lines.append(f"| {' | '.join([*cells, f'{epoch * recipe.epochs:,}'])} |")
    return "\n".join(lines) + "\n"


def speed_row(run: Run, cost: Cost) -> str:
    """Returns what the processor does for a run."""
    per_sample = [1000 * seconds / run.measured for seconds in (cost.encoders, cost.fusion)]
    # The optimiser's time does not depend on the batch.
    step = run.recipe.batch_size * sum(per_sample) / 1000 + cost.optimiser
    cells = [
        run.title,
        f"{run.measured}",
        *(f"{value:.1f} ms" for value in per_sample),
        f"{1000 * cost.optimiser:.0f} ms",
    ]
    return f"| {' | '.join([*cells, f'{run.recipe.batch_size / step:.2f}', f'{run.steps() * step / 3600:.1f} h'])} |"


def memory_row(run: Run, cost: Cost) -> str:
    """Returns what memory a run needs."""
    cells = [run.title, f"{cost.parameters:,}", f"{16 * cost.parameters / MIB:.0f}"]
    kept_here = (cost.kept_by_backbones, cost.kept_elsewhere, cost.kept_by_formula)
    cells += [*(f"{value / MIB:.2f}" for value in kept_here), f"{run.measured}", f"{cost.memory(run.measured):.0f}"]
    return f"| {' | '.join([*cells, f'{cost.peak:.0f}', f'{cost.memory(run.recipe.batch_size) / 1024:.1f} GiB'])} |"


SPEED = (
    "| run | batch measured | encoders, a sample | the rest, a sample | optimiser, a step | samples a second | "
    "the run |"
)
MEMORY = (
    "| run | parameters | states, 16 P | A in backbones, counted | A elsewhere, counted | by formula | "
    "batch measured | step by formula | peak | recipe's batch, by formula |"
)


def _rule(heading: str) -> str:
    return "|---" * (heading.count("|") - 1) + "|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--here", choices=RUNS, help="only print the cost of one run, as JSON")
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f"--threads must be >= 1, got {args.threads}")
    torch.set_num_threads(args.threads)
    if args.here:
        print(json.dumps(asdict(cost(RUNS[args.here]))))
        return
    print(steps_table(), flush=True)
    costs = {}
    for name in args.runs:
        command = [sys.executable, "-m", "benchmarks.throughput", "--here", name, "--threads", str(args.threads)]
        costs[name] = Cost(**json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    print(SPEED, _rule(SPEED), *(speed_row(RUNS[name], costs[name]) for name in costs), "", sep="\n")
    print(MEMORY, _rule(MEMORY), *(memory_row(RUNS[name], costs[name]) for name in costs), sep="\n")


if __name__ == "__main__":
    main()
