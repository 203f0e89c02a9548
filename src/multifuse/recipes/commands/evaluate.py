"""multifuse evaluate: tests a trained model with missing modalities or corrupted input."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from multifuse.recipes.commands.training_options import add_padding_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.figure import Figure
    from rich.table import Table
    from torch import Tensor
    from torch.utils.data import DataLoader

    from multifuse.recipes.corruption.corrupted import Levels

LEVELS = {"noise": "--noise-levels", "drop": "--drop-rates", "shift": "--shifts"}


class EvaluationError(ValueError):
    """Raised when an evaluation cannot start; the message is one line that names the argument and its value."""


class Evaluation(Protocol):
    """The result of an evaluation, as a report, tables and a figure."""

    def report(self) -> dict[str, Any]: ...

    def tables(self) -> "Iterable[Table]": ...

    def figure(self) -> "Figure": ...


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse evaluate", description=__doc__)
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
    parser.add_argument(
        "--data", type=Path, help="MMSA feature file or folder of prepared clips (default: those in the run's folder)"
    )
    parser.add_argument(
        "--text-encoder", help="Hugging Face name or folder of the tokenizer, for a model that reads token ids"
    )
    add_padding_option(parser)
    parser.add_argument(
        "--split", choices=("train", "valid", "test"), default="test", help="split to test on (default: test)"
    )
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
        help="standard deviations of the noise, in units of each feature's",
    )
    parser.add_argument("--drop-rates", type=float, nargs="+", metavar="RATE", help="fractions of tokens to drop")
    parser.add_argument(
        "--shifts", type=int, nargs="+", metavar="TOKENS", help="numbers of tokens by which to delay one modality"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Evaluates the model, prints the tables, and writes {missing,noise}.json and .png."""
    from rich.console import Console

    from multifuse.recipes.corruption import corrupted, missing
    from multifuse.recipes.files import check_writable, whole, write_json
    from multifuse.recipes.jobs import progress
    from multifuse.recipes.measures.scores import CLASSES, SENTIMENT, Scoring

    name = "missing" if args.missing else "noise"
    levels = _levels(args)
    if args.draws < 1:
        raise EvaluationError(f"--draws must be >= 1, got {args.draws}")
    check_writable(args.output)
    for file in (f"{name}.json", f"{name}.png"):
        if (args.output / file).exists():
            raise EvaluationError(f"--output {args.output} already contains {file}; choose another folder")
    progress.quieten_loading()
    model = _model(args.model)
    reads_clips = model.config.problem_type == "single_label_classification"
    if reads_clips and args.noise:
        raise EvaluationError(f"--noise is only for models of feature files, but --model {args.model} reads clips")
    if reads_clips and args.padding is not None:
        raise EvaluationError(f"--padding is only for feature files, but --model {args.model} reads clips")
    source = _clips(model, args) if reads_clips else _utterances(model, args)
    evaluation: Evaluation
    if args.missing:
        scoring: Scoring[Any] = CLASSES if reads_clips else SENTIMENT
        evaluation = missing.evaluated(model, source.batches, scoring, args.draws, args.seed)
    else:
        try:
            evaluation = corrupted.evaluated(model, source.batches, source.spread, levels, args.draws, args.seed)
        except ValueError as error:  # a shift can make a sequence too long for the model
            reason = str(error).split(";")[0]  # what follows is advice for code, not for the command line
            raise EvaluationError(f"--shifts {max(levels.shift)}: {reason}") from None
    args.output.mkdir(parents=True, exist_ok=True)
    with whole(args.output / f"{name}.png") as partial:
        evaluation.figure().savefig(partial, format="png", dpi=120)
    report = {"data": source.name, "split": args.split, "draws": args.draws, "seed": args.seed, **evaluation.report()}
    write_json(args.output / f"{name}.json", report)
    console = Console()
    for table in evaluation.tables():
        console.print(table)


class _Source(NamedTuple):
    """The data that a model is tested on: the file's or folder's name, batches, and each feature's deviation."""

    name: str
    batches: "DataLoader[Any]"
    spread: "Mapping[str, Tensor]"


def _utterances(model: Any, args: argparse.Namespace) -> _Source:
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer

    from multifuse.recipes.corruption.corrupted import deviations
    from multifuse.recipes.data.features.mmsa import read_mmsa, standardised
    from multifuse.recipes.data.features.utterances import datasets
    from multifuse.recipes.jobs.job import naming_encoder

    path = args.data or args.model / "planted.pkl"
    modalities = tuple(model.config.modalities)
    reads_text = model.config.modalities.get("text", {}).get("encoder") == "text"
    stored = [name for name in modalities if name != "text" or not reads_text]
    if reads_text and args.text_encoder is None:
        raise EvaluationError("--text-encoder is required: the model reads token ids")
    data = standardised(read_mmsa(path, args.padding, stored))
    tokenizer = None
    if reads_text:
        with naming_encoder("text-encoder", args.text_encoder):
            tokenizer = AutoTokenizer.from_pretrained(args.text_encoder, trust_remote_code=False)
    for modality in modalities:
        width = model.config.modalities[modality].get("input_size")
        if width is not None and data.widths.get(modality) != width:
            raise EvaluationError(f"--data {path}: {modality} must have width {width}, got {data.widths.get(modality)}")
    positions = model.config.max_positions
    for modality, sequence in getattr(data, args.split).features.items():
        if model.config.positions == "learned" and (longest := int(sequence.lengths.max())) > positions:
            raise EvaluationError(
                f"--data {path}: {modality} has a sample of {longest} tokens; the model has {positions} positions"
            )
    splits, collator = datasets(data, modalities, tokenizer)
    batches: DataLoader[Any] = DataLoader(splits[args.split], batch_size=64, collate_fn=collator)
    return _Source(path.name, batches, deviations(data.train))


def _clips(model: Any, args: argparse.Namespace) -> _Source:
    from torch.utils.data import DataLoader

    from multifuse.models import CLCRForSegmentPrediction
    from multifuse.recipes.data.media import shards
    from multifuse.recipes.data.media.clip_dataset import ClipCollator, ClipDataset
    from multifuse.recipes.data.media.preparation import prepared_record

    path = args.data or args.model / "prepared"
    if args.data is None and not path.exists():
        raise EvaluationError("--data is required: the run folder contains no prepared set")
    prepared_record(path)
    target: Literal["label", "segments"] = "segments" if isinstance(model, CLCRForSegmentPrediction) else "label"
    rows = shards.read_split(path, args.split)
    try:
        clips = ClipDataset(rows, tuple(model.config.modalities), target)
    except ValueError as error:
        raise EvaluationError(f"--data {path}: {error}") from None
    batches: DataLoader[Any] = DataLoader(clips, batch_size=16, collate_fn=ClipCollator())
    return _Source(path.name, batches, {})


def _levels(args: argparse.Namespace) -> "Levels":
    from multifuse.recipes.corruption.corrupted import Levels

    requested = {"noise": args.noise_levels, "drop": args.drop_rates, "shift": args.shifts}
    if args.missing and any(levels is not None for levels in requested.values()):
        raise EvaluationError(f"{', '.join(LEVELS.values())} can be used only with --noise, not with --missing")
    try:
        return Levels(**{kind: tuple(levels) for kind, levels in requested.items() if levels is not None})
    except ValueError as error:
        kind, message = str(error).split(": ", 1)
        raise EvaluationError(f"{LEVELS[kind]}: {message}") from None


def _model(folder: Path) -> Any:
    from multifuse.models import CLCRConfig, CLCRForSegmentPrediction
    from multifuse.recipes.jobs.models import MODELS, model_class

    model_folder = folder / "model" if (folder / "model").is_dir() else folder
    if not (model_folder / "config.json").is_file():
        raise EvaluationError(f"--model {folder} contains no saved model: it has no config.json")
    try:
        names = CLCRConfig.from_pretrained(model_folder).architectures or ["CLCRForPrediction"]
        classes: dict[str, Any] = {cls.__name__: cls for cls in (*map(model_class, MODELS), CLCRForSegmentPrediction)}
        if names[0] not in classes:
            raise ValueError(f"it is a {names[0]}, not one of {list(classes)}")
        return classes[names[0]].from_pretrained(model_folder).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise EvaluationError(f"--model {folder} cannot be loaded: {' '.join(str(error).split())}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates a model as the arguments say, and returns the exit status."""
    args = _parsed(argv)
    from multifuse.recipes.data.features.mmsa import MMSAFileError
    from multifuse.recipes.data.split_lists.clips import PreparationError
    from multifuse.recipes.jobs.sentiment import JobError

    try:
        run(args)
    except (EvaluationError, JobError, MMSAFileError, PreparationError, OSError) as error:
        print(f"multifuse evaluate: error: {error}", file=sys.stderr)
        return 2
    return 0
