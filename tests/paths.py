"""The paths of the repository, and of real data that may be next to it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared/data"
"""Not part of the project: the tests that need it are skipped, with a reason, if it is absent."""
