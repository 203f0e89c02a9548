"""Where the tests find the repository, and the real data that may be beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared/data"
"""Not part of the project: checks on it skip, with a reason, where it is absent."""
