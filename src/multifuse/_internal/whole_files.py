"""Writes files and folders atomically, even if the process is killed or the power fails."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class OutputError(OSError):
    """Raised if output cannot be written (full disk, read-only folder); the message is one line that names the path."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a path beside ``path`` to write a file or a folder to, and moves it into place if the body succeeds.

    The content is synced to the disk before the move, and the move before this returns: even after a power cut,
    ``path`` has either its old or its new content, and is never an empty file. Only a folder is briefly missing while
    it is replaced; after a kill at that point, the next call restores the old one.

    Raises:
        OutputError: if the file system refuses; ``path`` is as it was.
    """
    partial, old = beside(path, "partial"), beside(path, "old")
    try:
        remove(partial)
        _step_back(old, path)
        yield partial
        put_in_place(partial, path)
    except BaseException as error:
        with suppress(OSError):
            remove(partial)
            _step_back(old, path)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        raise


def put_in_place(written: Path, path: Path) -> None:
    """Moves a file or a folder to ``path`` once all of it is on the disk, and replaces what was there."""
    old = beside(path, "old")
    _sync(written)
    if path.is_dir():  # a rename cannot replace a folder: move the old one aside, so that a complete one always exists
        os.replace(path, old)
    os.replace(written, path)
    _sync_one(path.parent)
    remove(old)


def beside(path: Path, suffix: str) -> Path:
    """Returns the hidden name of a file or folder while it is incomplete, or about to be deleted."""
    return path.with_name(f".{path.name}.{suffix}")


def remove(path: Path) -> None:
    """Deletes a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Syncs a file, or a folder and all that it holds, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system does not support fsync
            raise
    finally:
        os.close(descriptor)


def _step_back(old: Path, path: Path) -> None:
    """Restores the old folder if a kill between two renames left only that, and deletes it otherwise."""
    if old.exists() and not path.exists():
        os.replace(old, path)
    remove(old)
