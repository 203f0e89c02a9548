"""Files and folders that are written whole or not at all, through a killed process and through a power cut."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class OutputError(OSError):
    """Output that cannot be written: a full disk, a read-only folder; the message is one line that names the path."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write a file or a folder to, and moves it into place when that has succeeded.

    What was written lies on the disk before it is moved, and the move before this returns: after a power cut, too,
    ``path`` is the old one or the new one, never an empty file of the new one's name.

    Raises:
        OutputError: the file system refused; ``path`` is as it was.
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
    """Moves a file or a folder to ``path``, when all of it lies on the disk; what was there goes."""
    old = beside(path, "old")
    _sync(written)
    if path.is_dir():  # a rename replaces no folder: the old one steps aside, so that one of the two is always whole
        os.replace(path, old)
    os.replace(written, path)
    _sync_one(path.parent)
    remove(old)


def check_writable(folder: Path) -> None:
    """Checks, before there is anything to lose, that a folder can be made or written to; makes nothing.

    Raises:
        OutputError: a file stands in its place or above it, or the file system or its rights forbid it.
    """
    found = folder
    while not os.path.lexists(found) and found != found.parent:
        found = found.parent
    if not found.is_dir():
        raise OutputError(f"{folder} cannot be made: {found} is not a folder")
    if not os.access(found, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written: {found} is read-only")


def beside(path: Path, what: str) -> Path:
    """The hidden name that a file or folder has before it is whole, or once it is no more."""
    return path.with_name(f".{path.name}.{what}")


def discard(folder: Path) -> None:
    """Deletes a folder; a killed deletion leaves the whole folder, or its remains under a hidden name."""
    old = beside(folder, "old")
    remove(old)
    os.replace(folder, old)
    remove(old)


def remove(path: Path) -> None:
    """Deletes a file or a folder, in place, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Returns once a file, or a folder and all that it holds, lies on the disk."""
    if path.is_dir():
        for own in path.iterdir():
            _sync(own)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(descriptor)


def _step_back(old: Path, path: Path) -> None:
    """Undoes, or clears away, what a kill between the renames of a folder left."""
    if old.exists() and not path.exists():
        os.replace(old, path)
    remove(old)
