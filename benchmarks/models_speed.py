"""Sets CLCR beside compact versions of published models at the sizes of MOSI: python -m benchmarks.models_speed.

All have the same encoders, so the differences are those of the fusions. In one process and by turns: the time of a
training step (batch 64, SGD with momentum), and of inference for a batch of 1 and of 64. In a process of its own for
each model: the memory that a training step adds at its peak (Linux). Options: --threads N, --seconds S.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.launches import built, launches_of_step, loss_of, ragged_batch
from benchmarks.length_speed import mebibytes
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


def training_step(name: str) -> tuple[nn.Module, Callable[[], None]]:
    """Returns a model, and a function that trains it for a step."""
    model, (inputs, mask, labels) = built(name), ragged_batch()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        loss_of(model, inputs, mask, labels).backward()
        optimiser.step()

    return model, step


def inference(name: str, size: int) -> Callable[[], Tensor]:
    """Returns a function that predicts for a batch of ``size`` samples."""
    model, (inputs, mask, _) = built(name).eval(), ragged_batch(size)

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
    _, step = training_step(name)
    before = mebibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    step()
    return mebibytes("VmHWM") - before


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
