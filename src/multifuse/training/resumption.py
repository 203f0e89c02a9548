"""What `--resume` goes by: the newest whole checkpoint of a run, and the record of the job that began it."""

import json
from pathlib import Path
from typing import Any

from multifuse.files import whole

CHECKPOINTS = "checkpoints"
_RECORD = "job.json"


def newest_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint: Trainer writes its state last, so a killed write leaves none, or half of it."""
    found = sorted((output / CHECKPOINTS).glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    whole_ones = [folder for folder in found if _content(folder / "trainer_state.json") is not None]
    return whole_ones[-1] if whole_ones else None


def record(output: Path, job: dict[str, Any]) -> None:
    """Notes, beside the checkpoints to come, what is trained and how."""
    with whole(output / _RECORD) as partial:
        partial.write_text(json.dumps(job, indent=2) + "\n")


def differences(output: Path, job: dict[str, Any]) -> list[str]:
    """How a job differs from the recorded one, field by field; nothing where there is no record."""
    before = _content(output / _RECORD)
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
