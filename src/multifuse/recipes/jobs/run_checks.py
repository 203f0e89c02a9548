"""What is checked before a job runs, so that nothing of another run is lost."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from multifuse.recipes.files import check_writable
from multifuse.recipes.jobs import resumption
from multifuse.recipes.jobs.job import Job, JobError


def check(job: Job[Any, Any], use_cpu: bool) -> None:
    for name in ("epochs", "batch_size", "log_steps"):
        value = getattr(job, name)
        if value is not None and value < 1:
            raise JobError(f"--{name.replace('_', '-')} must be >= 1, got {value}")
    if job.lr is not None and not 0 < job.lr < float("inf"):
        raise JobError(f"--lr must be finite and > 0, got {job.lr}")
    if job.dropout is not None and not 0 <= job.dropout < 1:
        raise JobError(f"--dropout must be in [0, 1), got {job.dropout}")
    check_seed(job.seed)
    if job.loader_workers < 0:
        raise JobError(f"--loader-workers must be >= 0, got {job.loader_workers}")
    if job.device == "cuda" and not torch.cuda.is_available():
        raise JobError("--device cuda: torch finds no CUDA device")
    compiler = os.environ.get("CXX", "g++")
    if job.compile and use_cpu and shutil.which(compiler) is None:
        raise JobError(f"--compile needs a C++ compiler on a CPU, found no {compiler}; set CXX to name another one")
    job.check()
    check_writable(job.output)
    if not job.new_output:
        check_free(job.output, job.resume)


def check_seed(seed: int, draws: int | None = None) -> None:
    """Checks a seed, and those of the draws, each of which has the next one.

    Raises:
        JobError: if torch or numpy does not take one of them.
    """
    if not 0 <= seed <= 2**32 - (draws or 1):
        interval = "[0, 2**32)" if draws is None else "[0, 2**32 - draws]"
        raise JobError(f"--seed must be in {interval}, got {seed}")


def check_free(output: Path, resume: bool) -> None:
    """Checks that a folder holds nothing of another run.

    Raises:
        JobError: if it does.
    """
    if (output / "metrics.json").exists():
        raise JobError(f"--output {output} already holds a finished run's metrics.json; choose another folder")
    if not resume and (output / resumption.CHECKPOINTS).exists():
        raise JobError(f"--output {output} already holds a run's checkpoints; use --resume, or choose another folder")
    results = [name for name in ("model", "training.png") if (output / name).exists()]
    if results and not (resume and resumption.has_record(output)):
        raise JobError(f"--output {output} already holds {' and '.join(results)} of another run; choose another folder")


def check_resumed(output: Path, record: dict[str, Any]) -> None:
    newest = resumption.newest_checkpoint(output)
    if newest is not None and not resumption.has_record(output):
        raise JobError(f"--resume: {output / resumption.RECORD}, which says how the run was started, cannot be read")
    check_same(output, record)
    if newest is not None:
        resumption.check_seal(newest)


def check_same(output: Path, record: dict[str, Any]) -> None:
    """Checks that a resumed job is the recorded one, as far as both records say.

    Raises:
        JobError: if it is not.
    """
    if differences := resumption.differences(output, record):
        raise JobError(f"--resume: the run in {output} was started with {'; '.join(differences)}")
