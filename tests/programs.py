"""Runs `multifuse`, or a program of `examples`, in the process of the test: a new process would import for seconds."""

import io
import os
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from multifuse.recipes.commands.main import main


class Done(NamedTuple):
    """What a program has printed, and the status that it ended with."""

    returncode: int
    stdout: str
    stderr: str


def run(program: Path, *arguments: Any, cwd: Path) -> Done:
    """Runs a program as ``python PROGRAM ARGUMENTS`` in a folder; any warning is an error, as in every test."""
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with mock.patch.object(sys, "argv", [str(program), *map(str, arguments)]):
            return _ended(lambda: runpy.run_path(str(program), run_name="__main__"))
    finally:
        os.chdir(before)


def multifuse(*arguments: Any) -> Done:
    """Runs ``multifuse ARGUMENTS``; any warning is an error, as in every test."""
    return _ended(lambda: main(list(map(str, arguments))))


def _ended(program: Callable[[], object]) -> Done:
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            status = returned if isinstance(returned := program(), int) else 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Done(status, output.getvalue(), errors.getvalue())
