"""multifuse predict: what a trained model predicts for a new sample, or for every sample of a split."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multifuse.recipes.commands import trained_model
from multifuse.recipes.commands.trained_model import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from multifuse.processing.processor import CLCRProcessor
    from multifuse.recipes.predicted import Row

_GIVEN = ("text", "audio", "video")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse predict", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL", help="output folder of a run, or folder of a saved model")
    sample = parser.add_argument_group("a new sample, of which modalities may be missing")
    sample.add_argument("--text", help="what is said or written")
    sample.add_argument("--audio", type=Path, metavar="FILE", help="audio file, or a video whose sound is read")
    sample.add_argument(
        "--video", type=Path, metavar="FILE", help="video or image; without --audio, its sound is read if it has any"
    )
    trained_model.add_data_options(parser)
    parser.set_defaults(split=None)  # to tell whether it was given
    parser.add_argument("--output", type=Path, metavar="FILE", help="csv file to write (default: print the rows)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Predicts, and prints or writes one row per sample."""
    from multifuse.recipes.files import check_writable, write_text
    from multifuse.recipes.jobs import progress
    from multifuse.recipes.predicted import predicted

    given = [name for name in _GIVEN if getattr(args, name) is not None]
    if args.data is not None and given:
        raise ArgumentError(f"--data {args.data} is a set, --{given[0]} a new sample: give one of both")
    if given and (of_set := [f"--{name} {value}" for name in ("split", "padding") if (value := getattr(args, name))]):
        raise ArgumentError(f"{of_set[0]} is for --data, and --{given[0]} is a new sample")
    args.split = args.split or "test"
    if args.output is not None:
        if args.output.exists():
            raise ArgumentError(f"--output {args.output} already exists; choose another file")
        check_writable(args.output.parent)
    progress.quieten_loading()
    model = trained_model.load_any_model("MODEL", args.model)
    rows: list[Row] = []
    if given:
        processor = trained_model.load_processor("MODEL", args.model)
        rows += predicted(model, _new_sample(args, model, processor), ["new"])
    else:
        source = trained_model.read_source("MODEL", args.model, model, args)
        ids = iter(source.ids)
        empty: list[str] = []
        for batch in source.batches:
            of_batch = list(islice(ids, len(batch["labels"])))
            rows += predicted(model, batch, of_batch)
            empty += _without_input(batch, of_batch)
        if empty:
            which = f"{len(empty)} of {len(source.ids)} samples, such as {empty[0]}"
            _note(f"nothing can be read of {which}: what is predicted for them depends on no input")
    text = _csv(rows)
    if args.output is None:
        sys.stdout.write(text)
        return
    write_text(args.output, text)


def _note(text: str) -> None:
    print(f"multifuse predict: {text}", file=sys.stderr)


def _without_input(batch: Any, ids: Sequence[str]) -> list[str]:
    """Returns the ids of the samples that lack all modalities."""
    present = sum(mask.flatten(1).any(1).long() for mask in batch["mask"].values())
    return [name for name, count in zip(ids, present, strict=True) if not count]


def _new_sample(args: argparse.Namespace, model: Any, processor: "CLCRProcessor") -> Any:
    """Returns the batch of the sample that the arguments describe."""
    from multifuse.processing import Sample

    known = tuple(model.config.modalities)
    values = {option: value for option in _GIVEN if (value := getattr(args, option)) is not None}
    sources = {"text": "text", "audio": "audio" if "audio" in values else "video", "vision": "video", "flow": "video"}
    options = {name: option for name, option in sources.items() if name in known and option in values}
    for option, value in values.items():
        if option not in options.values():
            raise ArgumentError(f"--{option} {value}: the model reads only {', '.join(known)}")
    read = {name: _read(name, option, values[option], processor) for name, option in options.items()}
    reasons = {name: why for name, why in read.items() if isinstance(why, str)}
    lacks = {name: f"--{options[name]} {values[options[name]]} {why}" for name, why in reasons.items()}
    if len(lacks) == len(read):
        raise ArgumentError(f"{'; '.join(lacks.values())}: the model reads only {', '.join(known)}")
    for name, lack in lacks.items():
        _note(f"{lack}: {name} is missing")
    return processor.collator([Sample({name: values for name, values in read.items() if not isinstance(values, str)})])


def _read(name: str, option: str, value: Any, processor: "CLCRProcessor") -> "Tensor | str":
    """Returns what an option gives of a modality, or why it gives nothing."""
    values = _values(name, option, value, processor)
    if isinstance(values, str) or len(values):
        return values
    return "has no two successive frames" if option == "video" else "has no token"


def _values(name: str, option: str, value: Any, processor: "CLCRProcessor") -> "Tensor | str":
    """Returns the values of a modality, which may be none, or that a video or image has no sound."""
    from multifuse.processing import FeatureInput, TextInput

    kind = processor.modalities[name]
    if isinstance(kind, FeatureInput):
        raise ArgumentError(
            f"--{option} {value}: the model reads {name} as features of another program; use --data with a feature file"
        )
    if isinstance(kind, TextInput):
        return kind(value, processor.tokenizer)
    from multifuse.media.decoding import NoSoundError

    try:
        return kind(value)
    except NoSoundError as error:
        if option == "audio":
            raise ArgumentError(f"--audio {value} {error}") from None
        return str(error)
    except ValueError as error:
        raise ArgumentError(f"--{option} {value} {error}") from None


def _csv(rows: "list[Row]") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts as the arguments say, and returns the exit status."""
    args = _parsed(argv)
    return trained_model.status("predict", lambda: run(args))
