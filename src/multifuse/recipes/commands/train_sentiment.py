"""The command-line arguments of multifuse train for the sentiment benchmarks, mosi and mosei."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multifuse.recipes.commands.training_options import (
    add_model_option,
    add_padding_option,
    add_training_options,
    training_options,
)
from multifuse.recipes.data.features.planted_settings import EMBEDDED, SETTINGS
from multifuse.recipes.jobs.models import MODELS

if TYPE_CHECKING:
    from multifuse.recipes.jobs.sentiment import SentimentJob


def job(benchmark: str, argv: Sequence[str]) -> "Callable[[], SentimentJob]":
    """Parses the arguments, and returns a function that makes the job."""
    args = _parser(benchmark).parse_args(argv)

    def make() -> "SentimentJob":
        from multifuse.recipes.jobs.sentiment import SentimentJob

        return SentimentJob(
            **training_options(args, benchmark),
            data=args.data,
            planted=args.planted,
            text_encoder=None if args.text_encoder == "none" else args.text_encoder,
            model=args.model,
            modalities=None if args.modalities is None else tuple(args.modalities),
            padding=args.padding,
        )

    return make


def _parser(benchmark: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"multifuse train {benchmark}",
        description="Trains a sentiment model on an MMSA feature file and tests it; without --data, demonstrates the "
        "whole job on a small built-in synthetic data set.",
        allow_abbrev=False,  # the model card leaves out options by their names
    )
    parser.add_argument("--data", type=Path, help="MMSA feature file (default: the built-in synthetic data set)")
    parser.add_argument(
        "--planted", choices=tuple(SETTINGS), help=f"setting of the built-in synthetic data set (default: {EMBEDDED})"
    )
    parser.add_argument(
        "--text-encoder",
        default="none",
        help="Hugging Face name or folder of a text encoder, or 'none' for the file's stored text features (default)",
    )
    add_model_option(parser, tuple(MODELS))
    parser.add_argument(
        "--modalities", nargs="+", choices=("text", "vision", "audio"), help="modalities to use (default: all)"
    )
    add_padding_option(parser)
    add_training_options(parser, benchmark)
    return parser
