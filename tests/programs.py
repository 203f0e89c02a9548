"""Runs a program of `examples` in the process of the test: most of the time of a new process would go into imports."""

import io
import os
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock


class Done(NamedTuple):
    """What a program has printed, and the status that it ended with."""

    returncode: int
    stdout: str
    stderr: str


def run(program: Path, *arguments: Any, cwd: Path) -> Done:
    """Runs a program as ``python PROGRAM ARGUMENTS`` in a folder; any warning is an error, as in every test."""
    output, errors, status, before = io.StringIO(), io.StringIO(), 0, Path.cwd()
    os.chdir(cwd)
    try:
        with (
            mock.patch.object(sys, "argv", [str(program), *map(str, arguments)]),
            redirect_stdout(output),
            redirect_stderr(errors),
        ):
            runpy.run_path(str(program), run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        os.chdir(before)
    return Done(status, output.getvalue(), errors.getvalue())
