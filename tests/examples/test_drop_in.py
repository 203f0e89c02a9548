"""The programs in `examples/drop_in`: each runs for a few steps, and is short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

PROGRAMS = sorted((ROOT / "examples/drop_in").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_drop_in_program_runs_and_is_short(program: Path) -> None:
    assert len(program.read_text().splitlines()) <= 90
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), "--steps", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("step 0: accuracy ")
    assert last.startswith("step 2: accuracy ")
