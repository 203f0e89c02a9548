"""Digests of what a run reads, by which `--resume` notices other content under the same name."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multifuse.recipes.files import digest
from multifuse.recipes.jobs.job import naming_encoder

_ENCODER_SUFFIXES = (".json", ".txt", ".model", ".safetensors", ".bin")
"""The suffixes of the configs, tokenizers and weights that are loaded with an encoder."""
_ENDS = 1 << 20
"""The number of bytes at the start and at the end of a shard that are read."""


def encoder_digest(flag: str, name_or_folder: str) -> str | None:
    """Returns a SHA-256 of the files of a pretrained model in a local folder, ``None`` for any other name.

    Raises:
        JobError: if a file cannot be read; the message names the ``flag``.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _ENCODER_SUFFIXES)
    with naming_encoder(flag, name_or_folder):
        return _joined([f"{path.name} {digest(path)}" for path in files])


def prepared_digest(folder: Path, record: Mapping[str, Any]) -> str:
    """Returns a SHA-256 of a prepared set: its record, and of every shard the name, the size and both ends.

    Shards are not read whole, because a set may be far larger than the time to start a run allows for.
    """
    lines = [json.dumps(record, sort_keys=True)]
    for path in sorted(folder.glob("*/*.arrow")):
        size = path.stat().st_size
        with path.open("rb") as file:
            ends = hashlib.sha256(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            ends.update(file.read(_ENDS))
        lines.append(f"{path.relative_to(folder).as_posix()} {size} {ends.hexdigest()}")
    return _joined(lines)


def _joined(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
