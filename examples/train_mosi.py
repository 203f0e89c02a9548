"""Trains CLCR on CMU-MOSI: from an MMSA feature file to the sentiment measures.

Without --data it runs on a small embedded synthetic data set, to show the job from end to end.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MMSA feature file; default: the embedded synthetic data set")
    parser.add_argument(
        "--text-encoder",
        default="none",
        help="Hugging Face name or folder of a text encoder, or 'none' for the file's stored text features (default)",
    )
    parser.add_argument("--output", type=Path, help="folder of the results (default: a new one in runs/mosi)")
    parser.add_argument(
        "--recipe", choices=("default", "paper"), default="default", help="paper: the published SGD recipe"
    )
    parser.add_argument(
        "--model", choices=("clcr", "text"), default="clcr", help="text: the text encoder alone, a yardstick"
    )
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--batch-size", type=int, help="over all processes; default: the recipe's")
    parser.add_argument("--lr", type=float, help="learning rate of the fusion model; default: the recipe's")
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: where the hardware supports it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    # After the arguments, so that --help is quick.
    from multifuse.data.mmsa import MMSAFileError
    from multifuse.training.sentiment_job import JobError, SentimentJob, run

    if given.output is None and (given.resume or "WORLD_SIZE" in os.environ):
        print("train_mosi: error: --resume and torchrun need --output, got none", file=sys.stderr)
        return 2
    output = given.output or Path("runs/mosi") / time.strftime("%Y%m%d-%H%M%S")
    job = SentimentJob(
        output=output,
        data=given.data,
        text_encoder=None if given.text_encoder == "none" else given.text_encoder,
        model=given.model,
        recipe=given.recipe,
        epochs=given.epochs,
        batch_size=given.batch_size,
        lr=given.lr,
        seed=given.seed,
        device=given.device,
        bf16=given.bf16,
        resume=given.resume,
    )
    try:
        run(job)
    except (JobError, MMSAFileError) as error:
        print(f"train_mosi: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    warnings.simplefilter("default")
    sys.exit(main())
