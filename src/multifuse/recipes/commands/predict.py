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
    from multifuse.processing.processor import CLCRProcessor
    from multifuse.recipes.predicted import Row

_GIVEN = ("text", "audio", "video")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse predict", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="output folder of a run, or folder of a saved model")
    sample = parser.add_argument_group("a new sample, of which modalities may be missing")
    sample.add_argument("--text", help="what is said or written")
    sample.add_argument("--audio", type=Path, metavar="FILE", help="sound, also of a film")
    sample.add_argument("--video", type=Path, metavar="FILE", help="film or picture; its sound is read without --audio")
    trained_model.add_data_options(parser)
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
        for batch in source.batches:
            rows += predicted(model, batch, list(islice(ids, len(batch["labels"]))))
    text = _csv(rows)
    if args.output is None:
        sys.stdout.write(text)
        return
    write_text(args.output, text)


def _new_sample(args: argparse.Namespace, model: Any, processor: "CLCRProcessor") -> Any:
    """Returns the batch of the sample that the arguments describe."""
    from multifuse.processing import FeatureInput

    sources = {"text": args.text, "audio": args.audio or args.video, "vision": args.video, "flow": args.video}
    inputs = {name: value for name, value in sources.items() if value is not None and name in model.config.modalities}
    reads = {"text": ("text",), "audio": ("audio",), "video": ("vision", "flow", "audio")}
    for option in _GIVEN:
        value = getattr(args, option)
        if value is not None and not set(reads[option]) & set(inputs):
            raise ArgumentError(f"--{option} {value}: the model reads only {', '.join(model.config.modalities)}")
    for name, value in inputs.items():
        if isinstance(processor.modalities[name], FeatureInput):
            raise ArgumentError(
                f"{value}: the model reads {name} as features of another program; use --data with a feature file"
            )
    try:
        return processor(**inputs)
    except ValueError as error:
        raise ArgumentError(str(error)) from None


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
