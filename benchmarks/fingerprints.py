"""What tells the data, the text encoder and the settings of result files from others; files of others are refused."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from benchmarks.machine import COMMIT
from multifuse.recipes.files import digest, write_text

MADE_WITH = {"fingerprint": "data", "encoder_fingerprint": "text encoder", "settings": "settings"}
"""The fields of a result file that identify what it was made with, and what they stand for."""


class ResultsError(ValueError):
    """Raised if there are no results, or they were made with other data or settings; the message is one line."""


def of_text(text: str) -> str:
    """Returns the fingerprint of a text, such as the representation of settings."""
    return sha256(text.encode()).hexdigest()[:16]


def of_file(path: Path) -> str:
    """Returns the fingerprint of a file's content, whatever its name is."""
    return digest(path)[:16]


def of_encoder(name: str) -> str:
    """Returns the fingerprint of all files of an encoder's folder, or the Hugging Face name and its revision."""
    folder = Path(name)
    if not folder.is_dir():
        return f"{name}@{getattr(AutoConfig.from_pretrained(name), '_commit_hash', None)}"
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    read = [path for path in names if not any(part.startswith(".") for part in path.parts)]
    return of_text(repr([(path.as_posix(), digest(folder / path)) for path in read]))


def of_features(data: Path, encoder: str | None) -> dict[str, Any]:
    """Returns the fields that identify a feature file and, if there is one, the encoder of its words."""
    return {"fingerprint": of_file(data), "encoder_fingerprint": None if encoder is None else of_encoder(encoder)}


def result_files(folder: Path) -> list[Path]:
    """Returns the result files in a folder, sorted.

    Raises:
        ResultsError: there are none.
    """
    if not (paths := sorted(folder.glob("*.json"))):
        raise ResultsError(f"{folder} holds no results")
    return paths


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result file on one line, atomically, with the commit that made it; its folder is made."""
    write_text(path, json.dumps({**result, "commit": COMMIT}) + "\n")


def check(paths: Iterable[Path], made_with: Mapping[str, Any]) -> None:
    """Checks that result files were made with these values of the fields of `MADE_WITH`.

    Raises:
        ResultsError: a file of other data or settings, whose numbers must not stand beside those of these, or a file
            that does not say what it was made with.
    """
    for path in paths:
        result = json.loads(path.read_text())
        for field, value in made_with.items():
            if field not in result:
                raise ResultsError(
                    f"{path}, of an earlier version, does not say with what {MADE_WITH[field]} it was made: such files "
                    "can only be summarised; name another folder for the results"
                )
            if (found := result[field]) != value:
                other = "another" if field == "encoder_fingerprint" else "other"
                raise ResultsError(
                    f"{path} was made with {other} {MADE_WITH[field]} ({field} {found}, not {value}): delete it, or "
                    "name another folder for the results"
                )


def check_same(paths: Iterable[Path], fields: Iterable[str], name: str) -> None:
    """Checks that result files agree on some fields of `MADE_WITH`, by which what is called ``name`` was made.

    Raises:
        ResultsError: two files that do not.
    """
    results = {path: json.loads(path.read_text()) for path in paths}
    for field in fields:
        for path, result in results.items():
            first = next(iter(results))
            if result.get(field) != results[first].get(field):
                raise ResultsError(
                    f"{name}: {first} and {path} were made with different {MADE_WITH[field]} ({field} "
                    f"{results[first].get(field)} and {result.get(field)}): delete or move those of one of them"
                )
