"""What the application writes: text and JSON, atomically, and where; digests of files."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from multifuse._internal.whole_files import OutputError, beside, put_in_place, remove, whole

__all__ = [
    "OutputError",
    "beside",
    "check_writable",
    "digest",
    "discard",
    "put_in_place",
    "remove",
    "whole",
    "write_json",
    "write_text",
]


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically; missing folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def check_writable(folder: Path) -> None:
    """Checks, before any work is done, that a folder can be created or written to, without creating it.

    Raises:
        OutputError: if a file is in its place or above it, or the file system or its permissions forbid it.
    """
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise OutputError(f"{folder} cannot be created: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written: {existing} is not writable")


def discard(folder: Path) -> None:
    """Deletes a folder; if killed, this leaves the complete folder, or its remains under a hidden name."""
    old = beside(folder, "old")
    remove(old)
    os.replace(folder, old)
    remove(old)
