"""``multifuse train {mosi,mosei}``: the arguments of the sentiment benchmarks."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multifuse.recipes.commands.training_options import add_training_options, training_options

if TYPE_CHECKING:
    from multifuse.recipes.jobs.sentiment import SentimentJob


def job(benchmark: str, given: Sequence[str]) -> "Callable[[], SentimentJob]":
    """Parses the arguments; the job itself is made when it is called."""
    parsed = _parser(benchmark).parse_args(given)

    def make() -> "SentimentJob":
        from multifuse.recipes.jobs.sentiment import SentimentJob

        return SentimentJob(
            **training_options(parsed, benchmark),
            data=parsed.data,
            text_encoder=None if parsed.text_encoder == "none" else parsed.text_encoder,
            model=parsed.model,
        )

    return make


def _parser(benchmark: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"multifuse train {benchmark}",
        description="Trains on an MMSA feature file and measures sentiment; without --data, on a small embedded "
        "synthetic data set, to show the job from end to end.",
    )
    parser.add_argument("--data", type=Path, help="MMSA feature file; default: the embedded synthetic data set")
    parser.add_argument(
        "--text-encoder",
        default="none",
        help="Hugging Face name or folder of a text encoder, or 'none' for the file's stored text features (default)",
    )
    parser.add_argument(
        "--model",
        choices=("clcr", "late-fusion", "cross-attention", "text"),
        default="clcr",
        help="or a baseline: another fusion behind the same encoders, or the text encoder alone",
    )
    add_training_options(parser, benchmark)
    return parser
