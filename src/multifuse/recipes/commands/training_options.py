"""The options of training that every benchmark shares."""

import argparse
import os
import time
from pathlib import Path
from typing import Any


def add_training_options(parser: argparse.ArgumentParser, benchmark: str) -> None:
    """Adds the options of training, the same for all benchmarks."""
    parser.add_argument("--output", type=Path, help=f"folder of the results (default: a new one in runs/{benchmark})")
    parser.add_argument(
        "--recipe", choices=("default", "paper"), default="default", help="paper: the published SGD recipe"
    )
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--batch-size", type=int, help="over all processes; default: the recipe's")
    parser.add_argument("--lr", type=float, help="learning rate of the fusion model; default: the recipe's")
    parser.add_argument("--dropout", type=float, help="of the fusion model and its encoders; default: the recipe's")
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: where the hardware supports it")
    parser.add_argument("--loader-workers", type=int, default=0, help="processes that read ahead (default 0)")
    parser.add_argument("--log-steps", type=int, help="steps a training loss is averaged over (default: an epoch's)")
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint in --output")


def training_options(given: argparse.Namespace, benchmark: str) -> dict[str, Any]:
    """Returns what `add_training_options` parsed, as the fields of a `Job`.

    Raises:
        JobError: no ``--output`` where a new folder cannot serve.
    """
    from multifuse.recipes.jobs.job import JobError

    if given.output is None and (given.resume or "WORLD_SIZE" in os.environ):
        raise JobError("--resume and torchrun need --output, got none")
    output = given.output or Path("runs") / benchmark / time.strftime("%Y%m%d-%H%M%S")
    names = ["recipe", "epochs", "batch_size", "lr", "dropout", "seed", "device", "bf16", "loader_workers"]
    names += ["log_steps", "resume"]
    return {"output": output, **{name: getattr(given, name) for name in names}}
