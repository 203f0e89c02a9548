"""``multifuse train BENCHMARK``: from data files to a trained model and its measures."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multifuse.recipes.jobs.job import Job

EXIT_ERROR = 2
SENTIMENT_SETS = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI"}


def main(given: Sequence[str] | None = None) -> int:
    """Trains on the benchmark that the first argument names; returns the exit status."""
    from multifuse.recipes.commands import train_audiovisual, train_sentiment
    from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS

    titles = {**SENTIMENT_SETS, **{name: data_set.title for name, data_set in AUDIOVISUAL_SETS.items()}}
    listed = "\n".join(f"  {name:11}{title}" for name, title in titles.items())
    parser = argparse.ArgumentParser(
        prog="multifuse train",
        description=f"Trains a model on a benchmark and measures it.\n\nbenchmarks:\n{listed}",
        epilog="multifuse train BENCHMARK --help shows the options of a benchmark.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("benchmark", choices=tuple(titles), metavar="BENCHMARK")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    parsed = parser.parse_args(given)
    job: Callable[[], Job[Any, Any]]
    if parsed.benchmark in SENTIMENT_SETS:
        job = train_sentiment.job(parsed.benchmark, parsed.arguments)
    else:
        job = train_audiovisual.job(AUDIOVISUAL_SETS[parsed.benchmark], parsed.arguments)
    return _run(f"multifuse train {parsed.benchmark}", job)


def _run(name: str, job: "Callable[[], Job[Any, Any]]") -> int:
    """Runs a job; an error that the user can correct ends in one line."""
    warnings.simplefilter("default")
    from multifuse.recipes.data.features.mmsa import MMSAFileError
    from multifuse.recipes.data.split_lists.clips import PreparationError, SplitListError
    from multifuse.recipes.files import OutputError
    from multifuse.recipes.jobs.job import JobError, run
    from multifuse.recipes.jobs.resumption import CheckpointError

    try:
        run(job())
    except (CheckpointError, JobError, MMSAFileError, OutputError, PreparationError, SplitListError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0
