"""multifuse train BENCHMARK: trains a model on a benchmark's data files and tests it."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multifuse.recipes.jobs.job import Job

EXIT_ERROR = 2
SENTIMENT_SETS = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI"}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains on the benchmark that the first argument names, and returns the exit status."""
    from multifuse.recipes.commands import train_audiovisual, train_sentiment
    from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS

    titles = {**SENTIMENT_SETS, **{name: data_set.title for name, data_set in AUDIOVISUAL_SETS.items()}}
    listed = "\n".join(f"  {name:11}{title}" for name, title in titles.items())
    parser = argparse.ArgumentParser(
        prog="multifuse train",
        description=f"Trains a model on a benchmark and tests it.\n\nbenchmarks:\n{listed}",
        epilog="Run multifuse train BENCHMARK --help for the options of a benchmark.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("benchmark", choices=tuple(titles), metavar="BENCHMARK")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    args = parser.parse_args(argv)
    make_job: Callable[[], Job[Any, Any]]
    if args.benchmark in SENTIMENT_SETS:
        make_job = train_sentiment.job(args.benchmark, args.arguments)
    else:
        make_job = train_audiovisual.job(AUDIOVISUAL_SETS[args.benchmark], args.arguments)
    return _run(f"multifuse train {args.benchmark}", make_job)


def _run(name: str, make_job: "Callable[[], Job[Any, Any]]") -> int:
    """Makes and runs a job; an error that the user can correct is printed as one line."""
    warnings.simplefilter("default")
    from multifuse.recipes.data.features.mmsa import MMSAFileError
    from multifuse.recipes.data.split_lists.clips import PreparationError, SplitListError
    from multifuse.recipes.files import OutputError
    from multifuse.recipes.jobs.job import JobError, run
    from multifuse.recipes.jobs.resumption import CheckpointError

    try:
        run(make_job())
    except (CheckpointError, JobError, MMSAFileError, OutputError, PreparationError, SplitListError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0
