"""Runs a Python command and kills it, as by ``kill -9``, at a chosen step of its work on the file system.

A step is a file that Python opens for writing, renames or deletes, or a folder that it makes, renames or deletes.
"""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR


def run(command: Sequence[str], printed: str, folder: str, step: int = 0, milliseconds: float = 0.0) -> None:
    """Runs ``-m MODULE ARGUMENTS`` or ``SCRIPT ARGUMENTS`` in this process, which starts a new session.

    Its output goes to the file ``printed``, followed by the number of its steps in ``folder``. It is killed just before
    the given step, counted from 1, or ``milliseconds`` after that step began; never, if the step is 0.
    """
    os.setsid()
    out = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    count_so_far = _watch(os.path.abspath(folder), step, milliseconds)
    module = command[0] == "-m"
    sys.argv = list(command[1:] if module else command)
    status: object = 0
    try:
        if module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    sys.stdout.flush()  # the output of the command comes before the number
    print(f"\n{count_so_far()}", file=sys.stderr, flush=True)
    sys.exit(status)  # type: ignore[arg-type]


def _watch(folder: str, step: int, milliseconds: float) -> Callable[[], int]:
    """Starts counting the steps; returns a function that returns their number so far."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & _WRITES:
                return
        elif event not in _CHANGES:
            return
        if not isinstance(arguments[0], str | os.PathLike) or not os.path.abspath(arguments[0]).startswith(folder):
            return
        count += 1
        if count == step:
            _kill(milliseconds)

    sys.addaudithook(hook)
    return lambda: count


def _kill(milliseconds: float) -> None:
    if milliseconds <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    subprocess.Popen(["sh", "-c", f"sleep {milliseconds / 1000}; kill -9 {os.getpid()}"])
