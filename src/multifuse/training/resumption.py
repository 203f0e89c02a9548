"""What `--resume` goes by: the newest whole checkpoint of a run, and the record of the job that began it."""

import json
import re
from pathlib import Path
from typing import Any

from multifuse.files import remove, whole

CHECKPOINTS, RECORD = "checkpoints", "job.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def newest_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint; one without its state, which no run leaves, was copied or damaged by hand."""
    found = [(_CHECKPOINT.fullmatch(folder.name), folder) for folder in (output / CHECKPOINTS).glob("checkpoint-*")]
    whole_ones = [
        (int(step[1]), folder) for step, folder in found if step and _content(folder / "trainer_state.json") is not None
    ]
    return max(whole_ones)[1] if whole_ones else None


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
