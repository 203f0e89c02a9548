"""The command line of the sentiment examples: CMU-MOSI and CMU-MOSEI."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from multifuse.training import command_line

if TYPE_CHECKING:
    from multifuse.training.sentiment_job import SentimentJob


def main(benchmark: str, description: str | None) -> int:
    """Runs ``examples/train_<benchmark>.py``."""

    def job(given: argparse.Namespace) -> "SentimentJob":
        from multifuse.training.sentiment_job import SentimentJob

        return SentimentJob(
            **command_line.training_options(given, benchmark),
            data=given.data,
            text_encoder=None if given.text_encoder == "none" else given.text_encoder,
            model=given.model,
        )

    return command_line.main(f"train_{benchmark}", _arguments(benchmark, description), job)


def _arguments(benchmark: str, description: str | None) -> argparse.Namespace:
    parser = command_line.parser(description)
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
        help="or a yardstick: another fusion behind the same encoders, or the text encoder alone",
    )
    command_line.add_training_options(parser, benchmark)
    return parser.parse_args()
