"""The claim of a run to its output folder, so that no two runs write to the same one at the same time."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from multifuse.recipes.files import OutputError
from multifuse.recipes.jobs.job import Job, JobError
from multifuse.recipes.jobs.run_checks import check_free

if sys.platform != "win32":
    import fcntl

AnyJob = TypeVar("AnyJob", bound=Job[Any, Any])


@contextmanager
def claimed(job: AnyJob) -> Iterator[AnyJob]:
    """Yields the job with its output folder, which no other run can claim before the block ends.

    A folder that is made here, and is empty at the end, is removed.

    Raises:
        JobError: if another run has claimed the folder, or it holds another run's results.
        OutputError: if the folder cannot be made.
    """
    absent = [folder for folder in job.output.parents if not folder.exists()]
    made: list[Path] = []
    try:
        output, is_new = _made(job)
        made = [output, *absent] if is_new else []
        with _locked(output):
            check_free(output, job.resume)  # a run may have ended in it since the check
            yield replace(job, output=output)
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _made(job: Job[Any, Any]) -> tuple[Path, bool]:
    """Returns the output folder, and whether it was made here; a new output gets the first name that is free."""
    for number in count(1):
        folder = job.output if number == 1 else job.output.with_name(f"{job.output.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not job.new_output:
                return folder, False
        except OSError as error:
            raise OutputError(f"{folder} cannot be created: {error.strerror or error}") from error
        else:
            return folder, True
    raise AssertionError


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder for as long as the block and its process last; Windows has no such locks."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise JobError(f"--output {folder} is in use by a run that has not ended; choose another folder") from None
    except OSError:  # some network file systems know no such locks
        os.close(descriptor)
        yield
        return
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # without this, forked processes would hold the lock after the close
        os.close(descriptor)
