"""What `--resume` goes by: the newest whole checkpoint of a run, and the record of the job that began it."""

import hashlib
import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multifuse.recipes.files import remove, whole

CHECKPOINTS, RECORD, SEAL = "checkpoints", "job.json", "sha256.json"
_CHECKPOINT = re.compile("checkpoint-([0-9]{1,18})")
_LONGEST_MESSAGE = 400


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from; the message is one line that names it and says what is wrong."""


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder by their step, the first first."""
    found = [(_CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*")]
    return sorted((int(step[1]), path) for step, path in found if step)


def newest_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint; one without its state, which no run leaves, was copied or damaged by hand."""
    found = checkpoints(output / CHECKPOINTS)
    whole_ones = [path for _, path in found if _content(path / "trainer_state.json") is not None]
    return whole_ones[-1] if whole_ones else None


def seal(checkpoint: Path) -> None:
    """Writes the SHA-256 of every file of a checkpoint beside them, when it is being made."""
    (checkpoint / SEAL).write_text(json.dumps(_digests(checkpoint), indent=2) + "\n")


def check_seal(checkpoint: Path) -> None:
    """Checks that a checkpoint is, bit by bit, what was written.

    Raises:
        CheckpointError: it is not.
    """
    sealed = _content(checkpoint / SEAL)
    if not isinstance(sealed, dict):
        raise CheckpointError(f"{checkpoint / SEAL}, which tells whether the checkpoint is whole, cannot be read")
    found = _digests(checkpoint)
    if changed := sorted(name for name in {*sealed, *found} if sealed.get(name) != found.get(name)):
        raise CheckpointError(f"{checkpoint} is damaged: {', '.join(changed)} not as written")


@contextmanager
def reading(checkpoint: str | Path) -> Iterator[None]:
    """Whatever is tripped over in a checkpoint whose seal was forged ends in one line that names it.

    Raises:
        CheckpointError: anything was.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE, placeholder=" ...")
        raise CheckpointError(f"{checkpoint} cannot be gone on from: {reason}") from error


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(own for own in folder.rglob("*") if own.is_file() and own.name != SEAL)
    return {path.relative_to(folder).as_posix(): _digest(path) for path in paths}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def clear_remains(output: Path) -> None:
    """Deletes the checkpoint that a killed run was writing, or deleting."""
    for path in (output / CHECKPOINTS).glob(".checkpoint*"):
        remove(path)


def has_record(output: Path) -> bool:
    """Whether a run was begun here, and says how."""
    return isinstance(_content(output / RECORD), dict)


def record(output: Path, job: dict[str, Any]) -> None:
    """Notes, beside the checkpoints to come, what is trained and how."""
    with whole(output / RECORD) as partial:
        partial.write_text(json.dumps(job, indent=2) + "\n")


def differences(output: Path, job: dict[str, Any]) -> list[str]:
    """How a job differs from the recorded one, field by field; nothing where there is no record."""
    before = _content(output / RECORD)
    if not isinstance(before, dict):
        return []
    now = json.loads(json.dumps(job))
    return [
        f"{name} {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
