"""Sets CLCR beside compact versions of published models at the sizes of MOSI: python -m benchmarks.models_speed.

All have the same encoders, so the differences are those of the fusions. In one process and by turns: the time of a
training step (batch 64, SGD with momentum), and of inference for a batch of 1 and of 64. In a process of its own for
each model: the memory that a training step adds at its peak (Linux). Options: --threads N, --seconds S.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.launches import launches_of_step, ragged_batch
from benchmarks.length_speed import added_at_peak
from benchmarks.step_speed import built, loss_of, sgd_step
from benchmarks.timing import Timing, in_turns

NAMES = {
    "clcr": "CLCR",
    "late-fusion": "late fusion, normalised",
    "cross-attention": "cross-attention, normalised",
    "concatenation": "early concatenation and a 2-layer transformer",
    "mult": "MulT-style cross-modal transformers (compact)",
    "low-rank": "low-rank tensor fusion, as LMF (compact)",
    "shared-private": "shared and private parts, as MISA (compact)",
}


def training_step(name: str) -> tuple[nn.Module, Callable[[], object]]:
    """Returns a model, and a function that trains it for a step."""
    model = built(name)
    return model, sgd_step(model, partial(loss_of, model, *ragged_batch()))


def inference(name: str, size: int) -> Callable[[], Tensor]:
    """Returns a function that predicts for a batch of ``size`` samples."""
    model, (inputs, _, mask) = built(name).eval(), ragged_batch(size)

    @torch.no_grad()
    def predict() -> Tensor:
        logits: Tensor = model(inputs, mask).logits
        return logits

    return predict


def table(seconds: float, threads: int) -> str:
    """Returns the comparison in Markdown."""
    models, steps = {}, {}
    for name in NAMES:
        models[name], steps[name] = training_step(name)
    step_times = in_turns(steps, seconds)
    single, batch = (in_turns({name: inference(name, size) for name in NAMES}, seconds / 2) for size in (1, 64))
    lines = [
        "| model | parameters | training step | of CLCR's | MiB | launches | 1 sample | 64 samples |",
        "|---" * 8 + "|",
    ]
    for name, title in NAMES.items():
        size = sum(weight.numel() for weight in models[name].parameters() if weight.grad is not None)
        share = step_times[name].median / step_times["clcr"].median
        cells = [title, f"{size:,}", _milliseconds(step_times[name]), f"{share:.2f}", f"{_peak(name, threads):.0f}"]
        cells += [str(launches_of_step(name)), _milliseconds(single[name]), _milliseconds(batch[name])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _milliseconds(timing: Timing) -> str:
    return f"{1000 * timing.median:.3g} ms"


def _peak(name: str, threads: int) -> float:
    command = [sys.executable, "-m", "benchmarks.models_speed", "--memory", name, "--threads", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_here(name: str) -> float:
    """Returns the MiB that a training step adds to this process at its peak; the optimiser's state is counted."""
    torch.manual_seed(0)
    return added_at_peak(training_step(name)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of the measurement of training steps")
    parser.add_argument("--memory", choices=NAMES, help="only print the memory of one model's step")
    args = parser.parse_args()
    if args.threads < 1 or not args.seconds > 0:
        parser.error(f"--threads must be >= 1 and --seconds > 0, got {args.threads} and {args.seconds}")
    torch.set_num_threads(args.threads)
    print(peak_here(args.memory) if args.memory else table(args.seconds, args.threads), end="")


if __name__ == "__main__":
    main()
