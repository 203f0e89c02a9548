"""multifuse explain: shows what a trained CLCR model computes on a split, as one HTML page."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multifuse.recipes.commands import trained_model
from multifuse.recipes.commands.trained_model import ArgumentError


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse explain", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL", help="output folder of a run, or folder of a saved model")
    trained_model.add_data_options(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="page to write (default: explain.html in MODEL)")
    parser.add_argument(
        "--evaluations",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="outputs of multifuse evaluate to show on the page, besides those in MODEL",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Runs the model over the split, and writes the page."""
    from rich.console import Console

    from multifuse.models import CLCRForPrediction, CLCRForSegmentPrediction
    from multifuse.recipes.explanation.gathered import About, explained
    from multifuse.recipes.explanation.page import page
    from multifuse.recipes.explanation.sweeps import read_sweeps
    from multifuse.recipes.files import check_writable, write_text
    from multifuse.recipes.jobs import progress
    from multifuse.recipes.measures.scores import CLASSES, SENTIMENT, Scoring

    output = args.output or args.model / "explain.html"
    if output.exists():
        raise ArgumentError(f"--output {output} already exists; choose another file")
    progress.quieten_loading()
    model = trained_model.load_model("MODEL", args.model, (CLCRForPrediction, CLCRForSegmentPrediction))
    identity = trained_model.identity(args.model)
    try:
        sweeps = [
            *read_sweeps([args.model], identity, required=False),
            *read_sweeps(args.evaluations or (), identity, required=True),
        ]
    except ValueError as error:
        raise ArgumentError(f"--evaluations: {error}") from None
    check_writable(output.parent)
    clips = trained_model.reads_clips(model)
    if not clips and (model.segments is not None or model.config.num_labels != 1):
        raise ArgumentError(f"MODEL {args.model} must predict one score or one class, but has other outputs")
    source = trained_model.read_source("MODEL", args.model, model, args)
    scoring: Scoring[Any] = CLASSES if clips else SENTIMENT
    about = About(identity.name, source.name, args.split, source.synthetic)
    try:
        explanation = explained(model, source.batches, scoring, about, source.ids, source.sentences, source.tokens)
    except ValueError as error:
        raise ArgumentError(f"MODEL {args.model}: {error}") from None
    write_text(output, page(explanation, sweeps))
    Console().print(f"Wrote {output}.", highlight=False, markup=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Explains a model as the arguments say, and returns the exit status."""
    args = _parsed(argv)
    return trained_model.status("explain", lambda: run(args))
