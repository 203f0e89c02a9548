"""Options that several commands have in common: those of training, and how a feature file's padding is read."""

import argparse
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_training_options(parser: argparse.ArgumentParser, benchmark: str) -> None:
    """Adds the training options, which are the same for all benchmarks."""
    parser.add_argument("--output", type=Path, help=f"folder of the results (default: a new one in runs/{benchmark})")
    parser.add_argument(
        "--recipe", choices=("default", "paper"), default="default", help="paper is the published SGD recipe"
    )
    parser.add_argument("--epochs", type=int, help="number of epochs (default: the recipe's)")
    parser.add_argument("--batch-size", type=int, help="batch size over all processes (default: the recipe's)")
    parser.add_argument("--lr", type=float, help="learning rate of the fusion model (default: the recipe's)")
    parser.add_argument(
        "--dropout", type=float, help="dropout of the fusion model and its encoders (default: the recipe's)"
    )
    parser.add_argument("--seed", type=int, default=1111, help="random seed (default: 1111)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute (default: auto, a GPU if there is one)",
    )
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="train in bfloat16 (default: for pretrained encoders, if the hardware supports it)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model by torch.compile, which takes minutes before the first step",
    )
    parser.add_argument("--loader-workers", type=int, default=0, help="processes that load batches ahead (default: 0)")
    parser.add_argument("--log-steps", type=int, help="steps per logged training loss (default: an epoch's)")
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint in --output")


def add_model_option(parser: argparse.ArgumentParser, models: tuple[str, ...]) -> None:
    """Adds ``--model``, for the models that can be trained on a benchmark."""
    only_text = ", or only the text encoder" if "text" in models else ""
    parser.add_argument(
        "--model",
        choices=models,
        default="clcr",
        help=f"CLCR (default) or a baseline: another fusion on the same encoders{only_text}",
    )


def add_padding_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--padding``, which says how the padding of a feature file is read."""
    parser.add_argument(
        "--padding",
        choices=("values", "lengths", "lengths-from-end"),
        help="what to believe about padding if a feature file contradicts itself: its values, from the first to the "
        "last non-zero row; or its lengths, as the first rows, or as the last ones (default: refuse such a file)",
    )


def training_options(args: argparse.Namespace, benchmark: str) -> dict[str, Any]:
    """Returns the values of the options of `add_training_options` as fields of a `Job`.

    Raises:
        JobError: if ``--resume`` or torchrun is used without ``--output``.
    """
    from multifuse.recipes.jobs.job import JobError

    if args.output is None and (args.resume or "WORLD_SIZE" in os.environ):
        raise JobError("--resume and torchrun need --output, got none")
    output = args.output or Path("runs") / benchmark / time.strftime("%Y%m%d-%H%M%S")
    names = ["recipe", "epochs", "batch_size", "lr", "dropout", "seed", "device", "bf16", "compile"]
    names += ["loader_workers", "log_steps", "resume"]
    return {"output": output, "new_output": args.output is None, **{name: getattr(args, name) for name in names}}


def command_line(command: str, arguments: Sequence[str]) -> str:
    """Returns a command as its model card shows it: what is trained, and not where the run was written or resumed.

    Of an absolute path only the last part is shown.
    """
    shown = [command]
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        if option == "--output" and not equals:
            next(rest, None)
        elif option not in ("--output", "--resume"):
            shown.append(shlex.quote(f"{option}{equals}{Path(value).name if os.path.isabs(value) else value}"))
    return " ".join(shown)
