"""Clips of a benchmark as its split lists name them, and validation splits made from the training list."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SPLITS = ("train", "valid", "test")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.() -]*")


class PreparationError(ValueError):
    """A preparation that cannot start or go on; the message is one line that names what is wrong."""


class SplitListError(ValueError):
    """A split list that cannot be used; the message is one line that names the file and the line."""


@dataclass(frozen=True)
class Clip:
    """One sample of a benchmark."""

    id: str
    """Also the stem of its media files."""
    label: int
    split: str
    group: str = ""
    """Who or what it was cut from (a speaker, a video): never on both sides of a split made here."""
    segments: tuple[int, ...] | None = None
    """A label for each of so many equal parts of its time."""
    other_stems: tuple[str, ...] = ()
    """Further names that its media files go by."""


@dataclass(frozen=True)
class ClipList:
    """A benchmark's clips, in the order of its lists, and the names of its classes."""

    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    segment_classes: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    """Stems of clips that the lists hold, and that were not chosen."""


def lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a list that are not blank, each with its place for messages.

    Raises:
        SplitListError: the file cannot be read, or holds none.
    """
    try:
        content = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "is no text in UTF-8"
        raise SplitListError(f"{path}: cannot be read: {reason}") from None
    found = [(f"{path}, line {number}", line.strip()) for number, line in enumerate(content, 1) if line.strip()]
    if not found:
        raise SplitListError(f"{path}: holds no line")
    return found


def safe_id(value: str, where: str) -> str:
    """Checks that an id is a plain file stem: lists come from elsewhere, and ids become names of files.

    Raises:
        SplitListError: a separator, ``..``, an absolute path, a control character, nothing at all.
    """
    if len(value) > 200 or ".." in value or not _SAFE_ID.fullmatch(value):
        raise SplitListError(f"{where}: an id must be a plain file name without folders, got {value!r}")
    return value


def held_out(
    clips: Sequence[Clip], group: Callable[[Clip], str], share: float = 0.1, by_class: bool = False, to: str = "valid"
) -> tuple[Clip, ...]:
    """Moves whole groups of training clips to another split, until that holds the share of them.

    The groups are taken in the order of the SHA-256 of their names: the same on every machine, and for every order of
    the list. With ``by_class`` the share is reached in every class by itself, a group counting with its first clip's.
    """
    training = [clip for clip in clips if clip.split == "train"]
    groups: dict[str, list[Clip]] = {}
    for clip in sorted(training, key=lambda clip: (clip.id, clip.label)):
        groups.setdefault(group(clip), []).append(clip)
    strata: dict[int, list[str]] = {}
    for name, members in groups.items():
        strata.setdefault(members[0].label if by_class else 0, []).append(name)
    moved: set[str] = set()
    for names in strata.values():
        wanted = share * sum(len(groups[name]) for name in names)
        taken = 0
        for name in sorted(names, key=_digest)[: len(names) - 1]:  # one group at least stays
            if taken >= wanted:
                break
            moved.add(name)
            taken += len(groups[name])
    return tuple(replace(c, split=to) if c.split == "train" and group(c) in moved else c for c in clips)


def known_label(name: str, classes: Iterable[str], where: str) -> int:
    """The index of a class.

    Raises:
        SplitListError: none of the classes.
    """
    known = list(classes)
    if name not in known:
        raise SplitListError(f"{where}: the class must be one of {known}, got {name!r}")
    return known.index(name)


def without_overlap(clips: Sequence[Clip], where: Path) -> tuple[Clip, ...]:
    """Checks that no clip lies in two splits.

    Raises:
        SplitListError: one does.
    """
    seen: dict[str, str] = {}
    for clip in clips:
        if seen.setdefault(clip.id, clip.split) != clip.split:
            raise SplitListError(f"{where}: {clip.id!r} is listed in {seen[clip.id]} and in {clip.split}")
    return tuple(clips)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
