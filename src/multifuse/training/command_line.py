"""The command line that every example shares."""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multifuse.training.job import Job

EXIT_ERROR = 2


def parser(description: str | None) -> argparse.ArgumentParser:
    """An empty parser that shows the example's own description."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_training_options(own: argparse.ArgumentParser, runs: str) -> None:
    """The options of training, of all benchmarks alike."""
    own.add_argument("--output", type=Path, help=f"folder of the results (default: a new one in runs/{runs})")
    own.add_argument(
        "--recipe", choices=("default", "paper"), default="default", help="paper: the published SGD recipe"
    )
    own.add_argument("--epochs", type=int, help="default: the recipe's")
    own.add_argument("--batch-size", type=int, help="over all processes; default: the recipe's")
    own.add_argument("--lr", type=float, help="learning rate of the fusion model; default: the recipe's")
    own.add_argument("--dropout", type=float, help="of the fusion model and its own encoders; default: the recipe's")
    own.add_argument("--seed", type=int, default=1111)
    own.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    own.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: where the hardware supports it")
    own.add_argument("--loader-workers", type=int, default=0, help="processes that read ahead (default 0)")
    own.add_argument("--log-steps", type=int, help="steps a training loss is averaged over (default: an epoch's)")
    own.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output")


def training_options(given: argparse.Namespace, runs: str) -> dict[str, Any]:
    """What `add_training_options` was given, as the fields of a `Job`.

    Raises:
        JobError: no ``--output`` where a new folder cannot serve.
    """
    from multifuse.training.job import JobError

    if given.output is None and (given.resume or "WORLD_SIZE" in os.environ):
        raise JobError("--resume and torchrun need --output, got none")
    output = given.output or Path("runs") / runs / time.strftime("%Y%m%d-%H%M%S")
    names = ["recipe", "epochs", "batch_size", "lr", "dropout", "seed", "device", "bf16", "loader_workers"]
    names += ["log_steps", "resume"]
    return {"output": output, **{name: getattr(given, name) for name in names}}


def main(name: str, given: argparse.Namespace, job: "Callable[[argparse.Namespace], Job[Any, Any]]") -> int:
    """Runs an example's job; what the user can put right ends in one line."""
    warnings.simplefilter("default")
    from multifuse.data.clips import PreparationError, SplitListError
    from multifuse.data.mmsa import MMSAFileError
    from multifuse.files import OutputError
    from multifuse.training.job import JobError, run
    from multifuse.training.resumption import CheckpointError

    try:
        run(job(given))
    except (CheckpointError, JobError, MMSAFileError, OutputError, PreparationError, SplitListError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0
