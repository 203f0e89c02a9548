"""multifuse train BENCHMARK: trains a model on a benchmark's data files and tests it."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from multifuse.recipes.commands.subcommand import subcommand
from multifuse.recipes.commands.training_options import command_line

if TYPE_CHECKING:
    from multifuse.recipes.jobs.job import Job

SENTIMENT_SETS = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI"}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains on the benchmark that the first argument names, and returns the exit status."""
    from multifuse.recipes.commands import train_audiovisual, train_sentiment
    from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS

    titles = {**SENTIMENT_SETS, **{name: data_set.title for name, data_set in AUDIOVISUAL_SETS.items()}}
    description = "Trains a model on a benchmark and tests it."
    name, arguments = subcommand("multifuse train", description, "benchmark", titles, argv)
    make_job: Callable[[], Job[Any, Any]]
    if name in SENTIMENT_SETS:
        make_job = train_sentiment.job(name, arguments)
    else:
        make_job = train_audiovisual.job(AUDIOVISUAL_SETS[name], arguments)
    return _run(f"multifuse train {name}", make_job, arguments)


def _run(name: str, make_job: "Callable[[], Job[Any, Any]]", arguments: Sequence[str]) -> int:
    """Makes and runs a job; an error that the user can correct is printed as one line."""
    warnings.simplefilter("default")
    from multifuse.recipes.data.features.mmsa import MMSAFileError
    from multifuse.recipes.data.split_lists.clips import PreparationError, SplitListError
    from multifuse.recipes.files import OutputError
    from multifuse.recipes.jobs.job import JobError
    from multifuse.recipes.jobs.resumption import CheckpointError
    from multifuse.recipes.jobs.run import run

    try:
        run(replace(make_job(), command=command_line(name, arguments)))
    except (CheckpointError, JobError, MMSAFileError, OutputError, PreparationError, SplitListError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    return 0
