"""Does the missing runs, several at a time, in processes of one thread each."""

import contextlib
import io
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

from benchmarks.evidence.plan import Section, missing
from benchmarks.evidence.runs import EvidenceSet, Run, do
from multifuse.recipes.data.media.preparation import end_with_parent


@contextlib.contextmanager
def one_thread_each(processes: int) -> Iterator[Executor]:
    """Yields an executor whose processes have one thread; what has not begun is cancelled if the body fails."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by each process when it loads torch
    with tempfile.TemporaryDirectory() as folder:
        pool = ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_in_worker, initargs=(folder,)
        )
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
            del os.environ["OMP_NUM_THREADS"]
            if before is not None:
                os.environ["OMP_NUM_THREADS"] = before


def _in_worker(folder: str) -> None:
    """Sets up a worker: an interrupt or the parent's death ends it at once, and the parent deletes what it leaves."""
    tempfile.tempdir = folder
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=end_with_parent, daemon=True).start()


def do_missing(
    executor: Executor, sections: Sequence[Section], sets: Mapping[str, EvidenceSet], results: Path
) -> list[Run]:
    """Does the runs that have not been done, and returns those that failed, which the others do not wait for."""
    return [
        run
        for section in sections
        for runs in missing(section, results)
        for run in _failed(executor, runs, sets[section.data], results)
    ]


def _failed(executor: Executor, runs: Sequence[Run], source: EvidenceSet, results: Path) -> Iterator[Run]:
    futures = {executor.submit(_quietly, run, source, results): run for run in runs}
    for count, future in enumerate(as_completed(futures), start=1):
        run, error = futures[future], future.exception()
        if isinstance(error, BrokenProcessPool):
            raise error
        outcome = "done" if error is None else f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"{count} of {len(runs)}: {run.data}, {run.name}, seed {run.seed}: {outcome}", flush=True)
        if error is not None:
            yield run


def _quietly(run: Run, source: EvidenceSet, results: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # progress bars
        do(run, source, results)
