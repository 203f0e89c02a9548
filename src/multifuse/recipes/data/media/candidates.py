"""Reads a clip from the first of its copies that can be used, and says which one and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from multifuse.media.decoding import MediaError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """What was read, and from which copy."""

    path: Path
    value: Value
    note: str = ""
    """Why it is not the preferred copy, or that it is blank."""


def first_usable(
    paths: Sequence[Path], read: Callable[[Path], Value], blank: Callable[[Value], str] = lambda _: ""
) -> Choice[Value]:
    """Reads the copies in their order until one can be decoded and is not blank; a blank one is the last resort.

    Args:
        paths: the copies, the preferred one first.
        read: reads a copy, or raises `MediaError`.
        blank: says what makes a value blank, such as ``"is silent"``; empty for a value that is not.

    Raises:
        MediaError: if no copy can be decoded. Its message starts with the name of a file, and has the reason for each.
    """
    reasons: list[str] = []
    last_resort: Choice[Value] | None = None
    for path in paths:
        name = _name(path, paths)
        try:
            value = read(path)
        except MediaError as error:
            reasons.append(f"{name} {error}")
            continue
        emptiness = blank(value)
        if not emptiness:
            return Choice(path, value, _note(reasons, name))
        reasons.append(f"{name} {emptiness}")
        last_resort = last_resort or Choice(path, value)
    if last_resort is None:
        raise MediaError("; ".join(reasons))
    return Choice(last_resort.path, last_resort.value, "; ".join(reasons))


def _note(reasons: Sequence[str], name: str) -> str:
    return f"{'; '.join(reasons)}; {name} is used instead" if reasons else ""


def _name(path: Path, paths: Sequence[Path]) -> str:
    """Returns the name of a file, with its folder if there are several copies."""
    return path.name if len(paths) == 1 else f"{path.parent.name}/{path.name}"
