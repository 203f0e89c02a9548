"""multifuse evaluate: tests a trained model with missing modalities or corrupted input."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from multifuse.recipes.commands import trained_model
from multifuse.recipes.commands.trained_model import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure
    from rich.table import Table

    from multifuse.recipes.corruption.corrupted import Levels

LEVELS = {"noise": "--noise-levels", "drop": "--drop-rates", "shift": "--shifts"}


class Evaluation(Protocol):
    """The result of an evaluation, as a report, tables and a figure."""

    def report(self) -> dict[str, Any]: ...

    def tables(self) -> "Iterable[Table]": ...

    def figure(self) -> "Figure": ...


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse evaluate", description=__doc__, allow_abbrev=False)
    condition = parser.add_mutually_exclusive_group(required=True)
    condition.add_argument(
        "--missing",
        action="store_true",
        help="test on every subset of the modalities, and with modalities missing at random",
    )
    condition.add_argument(
        "--noise",
        action="store_true",
        help="test with noisy features, with dropped tokens and with one modality delayed",
    )
    parser.add_argument("--model", type=Path, required=True, help="output folder of a run, or folder of a saved model")
    trained_model.add_data_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for {missing,noise}.json and .png")
    parser.add_argument(
        "--draws", type=int, default=5, help="number of random draws at each rate or level (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=1111, help="random seed (default: 1111)")
    parser.add_argument(
        "--noise-levels",
        type=float,
        nargs="+",
        metavar="LEVEL",
        help="standard deviations of the noise, in units of each feature's (default: 0.25 0.5 1 1.5 2)",
    )
    parser.add_argument(
        "--drop-rates",
        type=float,
        nargs="+",
        metavar="RATE",
        help="fractions of tokens to drop (default: 0.1 0.2 0.3 0.4 0.5 0.6 0.7)",
    )
    parser.add_argument(
        "--shifts",
        type=int,
        nargs="+",
        metavar="TOKENS",
        help="numbers of tokens by which to delay one modality (default: 1 2 4 8 16)",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Evaluates the model, prints the tables, and writes {missing,noise}.json and .png."""
    from rich.console import Console

    from multifuse.recipes.corruption import corrupted, missing
    from multifuse.recipes.files import check_writable, whole, write_json
    from multifuse.recipes.jobs import progress
    from multifuse.recipes.jobs.run_checks import check_seed
    from multifuse.recipes.measures.scores import CLASSES, SENTIMENT, Scoring

    name = "missing" if args.missing else "noise"
    levels = _levels(args)
    if args.draws < 1:
        raise ArgumentError(f"--draws must be >= 1, got {args.draws}")
    check_seed(args.seed, args.draws)
    check_writable(args.output)
    for file in (f"{name}.json", f"{name}.png"):
        if (args.output / file).exists():
            raise ArgumentError(f"--output {args.output} already contains {file}; choose another folder")
    progress.quieten_loading()
    model = trained_model.load_any_model("--model", args.model)
    reads_clips = trained_model.reads_clips(model)
    if reads_clips and args.noise:
        raise ArgumentError(f"--noise is only for models of feature files, but --model {args.model} reads clips")
    source = trained_model.read_source("--model", args.model, model, args)
    evaluation: Evaluation
    if args.missing:
        scoring: Scoring[Any] = CLASSES if reads_clips else SENTIMENT
        try:
            evaluation = missing.evaluated(model, source.batches, scoring, args.draws, args.seed)
        except ValueError as error:
            raise ArgumentError(f"--model {args.model}: {error}") from None
    else:
        try:
            evaluation = corrupted.evaluated(model, source.batches, source.spread, levels, args.draws, args.seed)
        except corrupted.LevelError as error:
            raise ArgumentError(f"{LEVELS[error.kind]} {error.level:g}: {error.reason}") from None
    args.output.mkdir(parents=True, exist_ok=True)
    with whole(args.output / f"{name}.png") as partial:
        evaluation.figure().savefig(partial, format="png", dpi=120)
    report = {
        "model": trained_model.identity(args.model).as_dict(),
        "data": source.name,
        "split": args.split,
        "draws": args.draws,
        "seed": args.seed,
        **evaluation.report(),
    }
    write_json(args.output / f"{name}.json", report)
    console = Console()
    for table in evaluation.tables():
        console.print(table)


def _levels(args: argparse.Namespace) -> "Levels":
    from multifuse.recipes.corruption.corrupted import Levels

    requested = {"noise": args.noise_levels, "drop": args.drop_rates, "shift": args.shifts}
    if args.missing and any(levels is not None for levels in requested.values()):
        raise ArgumentError(f"{', '.join(LEVELS.values())} can be used only with --noise, not with --missing")
    try:
        return Levels(**{kind: tuple(levels) for kind, levels in requested.items() if levels is not None})
    except ValueError as error:
        kind, message = str(error).split(": ", 1)
        raise ArgumentError(f"{LEVELS[kind]}: {message}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates a model as the arguments say, and returns the exit status."""
    args = _parsed(argv)
    return trained_model.status("evaluate", lambda: run(args))
