"""The kill test: training and preparation end with the same files, however often they are killed and resumed.

    python -m tests.kills --kills 50

Each job runs once undisturbed. It is then started again, killed with SIGKILL, resumed as its user would resume it and
killed again until it finishes. Its files are compared, and the next life begins, until the number of kills is reached.
The moments are drawn from a seed, in turn: at any time; just before a step of the job's work on the file system (a file
opened, renamed or deleted, a folder made); and some milliseconds after such a step.

After every kill, the files in place must be complete and equal to the undisturbed run's byte for byte, and no earlier
progress may be lost; at the end of a life, no file may be missing, extra or different. Two files contain clock times,
which are not compared: ``seconds`` in metrics.json, and the runtimes in the checkpoints' trainer_state.json (nor,
therefore, its SHA-256 in sha256.json).
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from multifuse.recipes.jobs import resumption
from tests import killed, media_files
from tests.files import bert, mmsa_splits, write
from tests.paths import ROOT

_CLOCK = ("_runtime", "_per_second")
_LATEST = 30.0
"""The latest moment of a kill after a step began, in milliseconds."""
_PATIENCE, _GRACE = 600.0, 30.0
"""The seconds that a run may take, and for which its workers may outlive it."""


class KillTestError(AssertionError):
    """Raised if something is lost, half-written or different."""


# Every run is forked from a process that has loaded the libraries, and otherwise does what the command line does.
_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *(
            "multifuse.recipes.jobs.sentiment",
            "multifuse.recipes.commands.prepare",
            "multifuse.recipes.commands.main",
            "accelerate",
            "datasets.arrow_writer",
        ),
        *("matplotlib.figure", "matplotlib.backends.backend_agg", "tests.killed"),
    ]
)


@dataclass(frozen=True)
class Task:
    """A job to kill: its command, its ``output`` folder, and how to tell its progress."""

    name: str
    command: tuple[str, ...]
    output: Path
    begun: str
    """The file that every run writes once it has started up."""
    progress: Callable[[Path], int]
    """Returns how far an output has come; raises if a part that is absent from the finished output is incomplete."""
    phase: Callable[[Path], str]
    """Returns what the job was doing when it was killed, judging by its output."""
    resume_options: tuple[str, ...] = ()
    """The options added to the command to resume a killed job."""
    finished: str | None = None
    """The file, written last, after which the job refuses to resume because nothing remains to be done."""


@dataclass(frozen=True)
class Reference:
    """The undisturbed run: its files, its start-up and total time, and its number of steps on the file system."""

    files: dict[str, bytes]
    startup: float
    seconds: float
    steps: int


@dataclass(frozen=True)
class Moment:
    """The moment at which a run is killed: after some seconds, or at a step."""

    kind: Literal["time", "step", "after a step", "never"]
    seconds: float = 0.0
    step: int = 0
    milliseconds: float = 0.0


@dataclass
class Outcome:
    """The result of killing a task."""

    kills: Counter[str] = field(default_factory=Counter)
    """The number of kills by phase."""
    kinds: Counter[str] = field(default_factory=Counter)
    """The number of kills by kind of moment."""
    lives: int = 0
    """The number of runs that finished after kills and were compared file by file."""
    files: int = 0
    """The number of files compared, after kills and at the end."""


def torment(task: Task, kills: int, draw: random.Random, log: Callable[[str], None]) -> Outcome:
    """Kills a task ``kills`` times.

    Raises:
        KillTestError: if something is lost, half-written or different.
    """
    reference, outcome = _reference(task), Outcome()
    log(f"{task.name}: {reference.seconds:.0f} s undisturbed, {reference.steps} steps on the file system")
    progress, fresh = 0, True
    while not fresh or sum(outcome.kills.values()) < kills:
        number = sum(outcome.kills.values())
        moment = _moment(draw, reference, number) if number < kills else None
        began = time.time()
        ended = not _run(task, fresh, moment)
        if moment is not None and not ended:
            phase = _phase(task, began)
            outcome.kills[phase] += 1
            outcome.kinds[moment.kind] += 1
            log(f"{task.name}: kill {number + 1} by {moment.kind}: {phase}")
            outcome.files += _check_whole(task, reference)
            fresh, before, progress = False, progress, task.progress(task.output)
            if progress < before:
                raise KillTestError(f"{task.name}: progress went from {before} back to {progress}")
            ended = task.finished is not None and (task.output / task.finished).exists()
        if ended:
            outcome.files += _check_equal(task, reference)
            outcome.lives += 0 if fresh else 1
            progress, fresh = 0, True
            shutil.rmtree(task.output)
    return outcome


def _moment(draw: random.Random, reference: Reference, number: int) -> Moment:
    if number % 3 == 0:
        early = draw.random() < 0.2
        bounds = (0.0, reference.startup) if early else (reference.startup, reference.seconds)
        return Moment("time", seconds=draw.uniform(*bounds))
    step = draw.randint(1, reference.steps)
    if number % 3 == 1:
        return Moment("step", step=step)
    return Moment("after a step", step=step, milliseconds=draw.uniform(0.1, _LATEST))


def _run(task: Task, fresh: bool, moment: Moment | None) -> bool:
    """Runs a task until it finishes or is killed; returns whether it was killed."""
    command = [*task.command, *(() if fresh else task.resume_options)]
    return _execute(task, command, moment or Moment("never"))[0] == -signal.SIGKILL


def _execute(task: Task, command: list[str], moment: Moment) -> tuple[int, str]:
    """Runs a command until it finishes or is killed; returns its exit status and output."""
    printed = task.output.with_name("printed")
    arguments = (command, str(printed), str(task.output), moment.step, moment.milliseconds)
    process = _FORKS.Process(target=killed.run, args=arguments)
    process.start()
    assert process.pid is not None
    timed = moment.kind == "time"
    process.join(moment.seconds if timed else _PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        if not timed:
            raise KillTestError(f"{task.name}: took more than {_PATIENCE} s")
    if process.exitcode not in (0, -signal.SIGKILL):
        raise KillTestError(f"{task.name}: ended with status {process.exitcode} and\n{printed.read_text()}")
    _check_no_orphans(task, process.pid)
    return process.exitcode, printed.read_text()


def _check_no_orphans(task: Task, group: int) -> None:
    """Checks that no worker outlives the job: the job could not be resumed while one still writes."""
    deadline = time.monotonic() + _GRACE
    while members := _living(group):
        if time.monotonic() > deadline:
            for member in members:
                os.kill(member, signal.SIGKILL)
            raise KillTestError(f"{task.name}: {len(members)} processes outlive the killed job by {_GRACE} s")
        time.sleep(0.02)


def _living(group: int) -> list[int]:
    """Returns the processes of a group, except those that have ended and wait to be reaped."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state not in "ZX":
                members.append(int(stat.parent.name))
    return members


def _reference(task: Task) -> Reference:
    """Runs a task undisturbed and counts its steps."""
    shutil.rmtree(task.output, ignore_errors=True)
    warm_up = _FORKS.Process(target=int)  # once it has ended, the libraries are loaded
    warm_up.start()
    warm_up.join()
    began = time.time()
    _, printed = _execute(task, list(task.command), Moment("never"))
    seconds = time.time() - began
    startup = (task.output / task.begun).stat().st_mtime - began
    reference = Reference(_files(task.output), startup, seconds, int(printed.splitlines()[-1]))
    shutil.rmtree(task.output)
    return reference


def _files(folder: Path) -> dict[str, bytes]:
    """Returns the content of the files in a folder, by name, without clock times."""
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: _without_clock(path) for name, path in paths.items()}


def _without_clock(path: Path) -> bytes:
    if path.name not in ("metrics.json", "trainer_state.json", "sha256.json"):
        return path.read_bytes()
    content: dict[str, Any] = json.loads(path.read_text())
    for name in ("seconds", "trainer_state.json"):
        content.pop(name, None)
    for entry in content.get("log_history", []):
        for name in [name for name in entry if name.endswith(_CLOCK)]:
            del entry[name]
    return json.dumps(content).encode()


def _check_equal(task: Task, reference: Reference) -> int:
    """Compares a finished output with the undisturbed one; returns the number of files."""
    files = _files(task.output)
    names = files.keys() ^ reference.files.keys()
    different = [name for name in files.keys() & reference.files.keys() if files[name] != reference.files[name]]
    if names or different:
        raise KillTestError(f"{task.name}: missing or extra: {sorted(names)}; different: {sorted(different)}")
    return len(files)


def _check_whole(task: Task, reference: Reference) -> int:
    """Checks the files that a kill left in place, except hidden ones; returns the number of files compared."""
    if not task.output.exists():
        return 0
    files = {
        name: content for name, content in _files(task.output).items() if name in reference.files and not _hidden(name)
    }
    damaged = [name for name, content in files.items() if content != reference.files[name]]
    if damaged:
        raise KillTestError(f"{task.name}: the kill left half-written or different {damaged}")
    return len(files)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _phase(task: Task, began: float) -> str:
    begun = task.output / task.begun
    if begun.exists() and begun.stat().st_mtime >= began:
        return task.phase(task.output)
    is_writing = task.output.exists() and any(task.output.glob(".*"))
    return "the first file being written" if is_writing else "start-up"


def training(folder: Path, epochs: int = 4) -> Task:
    """Returns the job `examples/train_mosi.py` on all modalities, with a small BERT, dropout and a weight average."""
    data, encoder = folder / "small.pkl", folder / "encoder"
    write(data, mmsa_splits(count=24))
    encoder.mkdir()
    bert(encoder)
    output = folder / "training"
    command = [
        str(ROOT / "examples/train_mosi.py"),
        "--data",
        str(data),
        "--text-encoder",
        str(encoder),
        "--output",
        str(output),
    ]
    command += ["--epochs", str(epochs), "--batch-size", "8", "--device", "cpu"]
    last = f"checkpoint-{3 * epochs}"
    return Task(
        "training",
        tuple(command),
        output,
        "job.json",
        _steps_trained,
        lambda folder: _training_phase(folder, last),
        ("--resume",),
        "metrics.json",
    )


def _steps_trained(output: Path) -> int:
    steps = [0]
    for checkpoint in (output / "checkpoints").glob("checkpoint-*"):
        resumption.check_seal(checkpoint)
        steps.append(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])
    return max(steps)


def _training_phase(output: Path, last: str) -> str:
    checkpoints = output / "checkpoints"
    if any(checkpoints.glob(".checkpoint.partial")):
        return "a checkpoint being written"
    if any(checkpoints.glob(".*")):
        return "an old checkpoint being deleted"
    for name in ("model", "training.png", "metrics.json"):
        if any(output.glob(f".{name}.*")):
            return f"{name} being written"
    if (output / "metrics.json").exists():
        return "after metrics.json"
    if (output / "model").exists():
        return "between the final files"
    if (checkpoints / last).exists():
        return "after the last epoch"
    return "in a later epoch" if any(checkpoints.glob("checkpoint-*")) else "in the first epoch"


def preparation(folder: Path, workers: int) -> Task:
    """Returns the job `multifuse prepare ks` on fourteen clips in six shards."""
    source = folder / "media"
    if not source.exists():
        media_files.kinetics_sounds(source, clips=14, train=11)
    output = folder / f"preparation-{workers}"
    command = [
        "-m",
        "multifuse",
        "prepare",
        "ks",
        "--media",
        str(source / "media"),
        "--output",
        str(output),
    ]
    command += ["--splits", str(source / "splits"), "--frames", "2", "--frame-size", "16", "--shard-size", "3"]
    command += ["--workers", str(workers)]
    name = f"preparation, {workers} worker{'s' if workers > 1 else ''}"
    return Task(name, tuple(command), output, "preparation.json", _shards_written, _preparation_phase)


def _shards_written(output: Path) -> int:
    return len([path for path in output.rglob("*.arrow") if not path.name.startswith(".")])


def _preparation_phase(output: Path) -> str:
    if any(path.name.startswith(".data-") for path in output.rglob(".*")):
        return "a shard being written"
    if any(output.rglob(".*")):
        return "the index being written"
    if (output / "report.json").exists():
        return "after report.json"
    if any(output.rglob("state.json")):
        return "between the index and report.json"
    return "between shards" if _shards_written(output) else "before the first shard"


def report(outcomes: dict[str, Outcome]) -> Table:
    """Returns the table of where the kills fell."""
    table = Table("job", "killed in", "kills", title="Killed, resumed and compared byte for byte")
    for name, outcome in outcomes.items():
        for phase, count in outcome.kills.most_common():
            table.add_row(name, phase, str(count))
        kinds = ", ".join(f"{count} by {kind}" for kind, count in outcome.kinds.items())
        ends = f"{outcome.lives} ends, {outcome.files} files compared, 0 different, lost or half-written"
        table.add_row(name, f"{kinds}; {ends}", str(sum(outcome.kills.values())), end_section=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="over all jobs (default 50)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = (training(Path(folder)), preparation(Path(folder), 1), preparation(Path(folder), 2))
        fifth = arguments.kills // 5
        for task, kills in zip(tasks, (arguments.kills - 2 * fifth, fifth, fifth), strict=True):
            draw = random.Random(f"{arguments.seed} {task.name}")
            outcomes[task.name] = torment(task, kills, draw, lambda line: print(line, flush=True))
    Console(width=150).print(report(outcomes))


if __name__ == "__main__":
    main()
