"""``multifuse evaluate``: a trained model's measures with modalities missing, or with its input corrupted."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.figure import Figure
    from rich.table import Table
    from torch import Tensor
    from torch.utils.data import DataLoader

    from multifuse.recipes.corruption.corrupted import Levels

LEVELS = {"noise": "--noise-levels", "drop": "--drop-rates", "shift": "--shifts"}


class EvaluationError(ValueError):
    """An evaluation that cannot start; the message is one line that names the argument and the offending value."""


class Evaluation(Protocol):
    """What was found, and how it is shown."""

    def report(self) -> dict[str, Any]: ...

    def tables(self) -> "Iterable[Table]": ...

    def figure(self) -> "Figure": ...


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse evaluate", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--missing", action="store_true", help="on every subset of the modalities, and at random absence")
    what.add_argument(
        "--noise", action="store_true", help="with noise on the features, tokens dropped, one modality late"
    )
    parser.add_argument("--model", type=Path, required=True, help="a run's output folder, or a saved model's")
    parser.add_argument("--data", type=Path, help="MMSA feature file, or prepared clips; default: the run's own")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder whose tokenizer the model's text needs")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test")
    parser.add_argument("--output", type=Path, required=True, help="folder for {missing,noise}.json and .png")
    parser.add_argument("--draws", type=int, default=5, help="of random numbers, at each rate or level")
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument(
        "--noise-levels", type=float, nargs="+", metavar="LEVEL", help="in each feature's standard deviation"
    )
    parser.add_argument("--drop-rates", type=float, nargs="+", metavar="RATE", help="of dropped tokens")
    parser.add_argument("--shifts", type=int, nargs="+", metavar="TOKENS", help="by which one modality is late")
    return parser.parse_args(given)


def run(given: argparse.Namespace) -> None:
    """Scores, prints the tables, and writes {missing,noise}.json and .png."""
    from rich.console import Console

    from multifuse.recipes.corruption import corrupted, missing
    from multifuse.recipes.files import check_writable, whole
    from multifuse.recipes.jobs import progress
    from multifuse.recipes.measures.scores import CLASSES, SENTIMENT

    name = "missing" if given.missing else "noise"
    levels = _levels(given)
    if given.draws < 1:
        raise EvaluationError(f"--draws must be >= 1, got {given.draws}")
    check_writable(given.output)
    for file in (f"{name}.json", f"{name}.png"):
        if (given.output / file).exists():
            raise EvaluationError(f"--output {given.output} already holds {file}; choose another folder")
    progress.quieten_loading()
    model = _model(given.model)
    of_clips = model.config.problem_type == "single_label_classification"
    if of_clips and given.noise:
        raise EvaluationError(f"--noise is for models of feature files, --model {given.model} reads clips")
    source = _clips(model, given) if of_clips else _utterances(model, given)
    found: Evaluation
    if of_clips:
        found = missing.evaluated(model, source.batches, CLASSES, given.draws, given.seed)
    elif given.missing:
        found = missing.evaluated(model, source.batches, SENTIMENT, given.draws, given.seed)
    else:
        try:
            found = corrupted.evaluated(model, source.batches, source.spread, levels, given.draws, given.seed)
        except ValueError as error:  # a sequence that a shift has made too long for the model
            raise EvaluationError(f"--shifts {max(levels.shift)}: {error}") from None
    given.output.mkdir(parents=True, exist_ok=True)
    with whole(given.output / f"{name}.png") as partial:
        found.figure().savefig(partial, format="png", dpi=120)
    report = {"data": source.name, "split": given.split, "draws": given.draws, "seed": given.seed, **found.report()}
    with whole(given.output / f"{name}.json") as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")
    console = Console()
    for table in found.tables():
        console.print(table)


class _Source(NamedTuple):
    """What a model is scored on: the name of its file or folder, batches, and every feature's deviation."""

    name: str
    batches: "DataLoader[Any]"
    spread: "Mapping[str, Tensor]"


def _utterances(model: Any, given: argparse.Namespace) -> _Source:
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer

    from multifuse.recipes.corruption.corrupted import deviations
    from multifuse.recipes.data.features.mmsa import read_mmsa, standardised
    from multifuse.recipes.data.features.utterances import datasets
    from multifuse.recipes.jobs.sentiment import naming_text_encoder

    path = given.data or given.model / "planted.pkl"
    data = standardised(read_mmsa(path))
    modalities = tuple(model.config.modalities)
    reads_text = model.config.modalities.get("text", {}).get("encoder") == "text"
    if reads_text and given.text_encoder is None:
        raise EvaluationError("--text-encoder is needed: the model reads token ids")
    tokenizer = None
    if reads_text:
        with naming_text_encoder(given.text_encoder):
            tokenizer = AutoTokenizer.from_pretrained(given.text_encoder, trust_remote_code=False)
    for modality in modalities:
        width = model.config.modalities[modality].get("input_size")
        if width is not None and data.widths.get(modality) != width:
            raise EvaluationError(f"--data {path}: {modality} must be {width} wide, is {data.widths.get(modality)}")
    splits, collator = datasets(data, modalities, tokenizer)
    batches: DataLoader[Any] = DataLoader(splits[given.split], batch_size=64, collate_fn=collator)
    return _Source(path.name, batches, deviations(data.train))


def _clips(model: Any, given: argparse.Namespace) -> _Source:
    from torch.utils.data import DataLoader

    from multifuse.models import CLCRForSegmentPrediction
    from multifuse.recipes.data.media import shards
    from multifuse.recipes.data.media.clip_dataset import ClipCollator, ClipDataset
    from multifuse.recipes.data.media.preparation import prepared_record

    path = given.data or given.model / "prepared"
    if given.data is None and not path.exists():
        raise EvaluationError("--data is needed, a prepared set: the run holds none of its own")
    prepared_record(path)
    by_second = isinstance(model, CLCRForSegmentPrediction)
    rows = shards.read_split(path, given.split)
    try:
        clips = ClipDataset(rows, tuple(model.config.modalities), "segments" if by_second else "label")
    except ValueError as error:
        raise EvaluationError(f"--data {path}: {error}") from None
    batches: DataLoader[Any] = DataLoader(clips, batch_size=16, collate_fn=ClipCollator())
    return _Source(path.name, batches, {})


def _levels(given: argparse.Namespace) -> "Levels":
    from multifuse.recipes.corruption.corrupted import Levels

    asked = {"noise": given.noise_levels, "drop": given.drop_rates, "shift": given.shifts}
    if given.missing and any(levels is not None for levels in asked.values()):
        raise EvaluationError(f"{', '.join(LEVELS.values())} go with --noise, not with --missing")
    try:
        return Levels(**{kind: tuple(levels) for kind, levels in asked.items() if levels is not None})
    except ValueError as error:
        kind, message = str(error).split(": ", 1)
        raise EvaluationError(f"{LEVELS[kind]}: {message}") from None


def _model(folder: Path) -> Any:
    from multifuse.models import CLCRConfig, CLCRForSegmentPrediction
    from multifuse.recipes.jobs.sentiment import MODELS

    own = folder / "model" if (folder / "model").is_dir() else folder
    if not (own / "config.json").is_file():
        raise EvaluationError(f"--model {folder} holds no saved model: no config.json")
    try:
        names = CLCRConfig.from_pretrained(own).architectures or ["CLCRForPrediction"]
        known: dict[str, Any] = {own.__name__: own for own in (*MODELS.values(), CLCRForSegmentPrediction)}
        if names[0] not in known:
            raise ValueError(f"it is a {names[0]}, not one of {list(known)}")
        return known[names[0]].from_pretrained(own).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise EvaluationError(f"--model {folder} cannot be loaded: {' '.join(str(error).split())}") from None


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    from multifuse.recipes.data.features.mmsa import MMSAFileError
    from multifuse.recipes.data.split_lists.clips import PreparationError
    from multifuse.recipes.jobs.sentiment import JobError

    try:
        run(given)
    except (EvaluationError, JobError, MMSAFileError, PreparationError, OSError) as error:
        print(f"multifuse evaluate: error: {error}", file=sys.stderr)
        return 2
    return 0
