"""What `--resume` relies on: the newest complete checkpoint of a run, and the record of the job that started it."""

import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multifuse.recipes.files import digest, remove, write_json

CHECKPOINTS, RECORD, SEAL = "checkpoints", "job.json", "sha256.json"
_CHECKPOINT = re.compile("checkpoint-([0-9]{1,18})")
_LONGEST_MESSAGE = 400
_DIGEST = "_sha256"
"""The end of the name of a field that holds a digest of what the field without it names."""
_DIGEST_FIELDS = tuple(f"{name}{_DIGEST}" for name in ("data", "text_encoder", "audio_backbone", "vision_backbone"))
_LATER_FIELDS = (*_DIGEST_FIELDS, "bf16", "compile", "device", "processes", "loader_workers")
"""The fields that records of earlier versions lack; they are compared only where there are both values."""


class CheckpointError(ValueError):
    """Raised if a run cannot be resumed from a checkpoint; the message is one line that names it and the fault."""


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Returns the checkpoints in a folder with their steps, in ascending order."""
    matches = [(_CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*")]
    return sorted((int(match[1]), path) for match, path in matches if match)


def newest_checkpoint(output: Path) -> Path | None:
    """Returns the newest checkpoint of a run that has a readable state, ``None`` if there is none.

    Runs write checkpoints atomically: one without a state was copied incompletely, or damaged.
    """
    complete = [
        path for _, path in checkpoints(output / CHECKPOINTS) if _content(path / "trainer_state.json") is not None
    ]
    return complete[-1] if complete else None


def seal(checkpoint: Path) -> None:
    """Adds to a new checkpoint a file with the SHA-256 digests of all its files."""
    (checkpoint / SEAL).write_text(json.dumps(_digests(checkpoint), indent=2) + "\n")


def check_seal(checkpoint: Path) -> None:
    """Checks that a checkpoint is exactly as it was written.

    Raises:
        CheckpointError: if it is not.
    """
    sealed = _content(checkpoint / SEAL)
    if not isinstance(sealed, dict):
        raise CheckpointError(f"{checkpoint / SEAL}, which the checkpoint is verified against, cannot be read")
    digests = _digests(checkpoint)
    if changed := sorted(name for name in {*sealed, *digests} if sealed.get(name) != digests.get(name)):
        raise CheckpointError(f"{checkpoint} is damaged: these files are not as written: {', '.join(changed)}")


@contextmanager
def reading(checkpoint: str | Path) -> Iterator[None]:
    """Turns any error while a checkpoint is read into one line that names it: its seal may be forged.

    Raises:
        CheckpointError: in place of any other error.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE, placeholder=" ...")
        raise CheckpointError(f"{checkpoint} cannot be resumed from: {reason}") from error


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    return {path.relative_to(folder).as_posix(): digest(path) for path in paths}


def clear_remains(output: Path) -> None:
    """Deletes the checkpoint that a killed run was writing or deleting."""
    for path in (output / CHECKPOINTS).glob(".checkpoint*"):
        remove(path)


def has_record(output: Path) -> bool:
    """Returns whether the folder holds a readable record of the run that was started in it."""
    return isinstance(_content(output / RECORD), dict)


def record(output: Path, job: dict[str, Any]) -> None:
    """Writes down what is trained and how, for `differences` to compare with when the run is resumed."""
    write_json(output / RECORD, job)


def differences(output: Path, job: dict[str, Any]) -> list[str]:
    """Returns how a job differs from the recorded one, field by field; an empty list if there is no record.

    A field that came later is not compared where one of the two lacks it, nor a digest where the names differ already.
    """
    recorded = _content(output / RECORD)
    if not isinstance(recorded, dict):
        return []
    current = json.loads(json.dumps(job))
    different = [
        name
        for name in sorted({*recorded, *current})
        if recorded.get(name) != current.get(name)
        and (name not in _LATER_FIELDS or (name in recorded and name in current))
    ]
    return [
        f"{name.removesuffix(_DIGEST)} {_shown(name, recorded)}, now {_shown(name, current)}"
        for name in different
        if not name.endswith(_DIGEST) or name.removesuffix(_DIGEST) not in different
    ]


def _shown(name: str, job: dict[str, Any]) -> str:
    """Returns the value of a field as a message shows it: a digest shortened, beside the name of what it is of."""
    value = job.get(name)
    if name not in _DIGEST_FIELDS:
        return repr(value)
    what = job.get(name.removesuffix(_DIGEST))
    content = "outside any local folder" if value is None else f"with SHA-256 {str(value)[:12]}"
    return content if what is None else f"{what!r} {content}"


def _content(path: Path) -> Any:
    """Returns the content of a JSON file, ``None`` if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
