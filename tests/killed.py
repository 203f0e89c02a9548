"""Runs a module or a script that is killed, as by ``kill -9``, at a chosen step of its work on the file system.

    python -m tests.killed FOLDER STEP MILLISECONDS (-m MODULE | SCRIPT) ARGUMENTS...

A step is a file of FOLDER that Python opens for writing, renames or deletes, or a folder of it that is made, renamed or
deleted. The kill comes just before the step, or so many milliseconds after it began. Step 0 kills nothing: the number
of steps is printed instead, on the last line of stderr.
"""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR


def watch(folder: str, step: int, milliseconds: float) -> Callable[[], int]:
    """Begins to count the steps, and tells how many there were."""
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


def main() -> None:
    folder, step, milliseconds, *command = sys.argv[1:]
    counted = watch(os.path.abspath(folder), int(step), float(milliseconds))
    module = command[0] == "-m"
    sys.argv = command[1:] if module else command
    try:
        if module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        if int(step) == 0:
            print(counted(), file=sys.stderr)


if __name__ == "__main__":
    main()
