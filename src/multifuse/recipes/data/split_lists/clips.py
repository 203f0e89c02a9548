"""The clips that a benchmark's split lists contain, and validation splits made from its training clips."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SPLITS = ("train", "valid", "test")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.() -]*")


class PreparationError(ValueError):
    """Raised when a preparation cannot start or continue; the message is one line that says why."""


class SplitListError(ValueError):
    """Raised when a split list cannot be used; the message is one line that names the file and, if known, the line."""


@dataclass(frozen=True)
class Clip:
    """One sample of a benchmark."""

    id: str
    """The identifier, which is also the stem of its media files."""
    label: int
    split: str
    group: str = ""
    """The speaker or video that it comes from; splits made here never divide a group."""
    segments: tuple[int, ...] | None = None
    """The labels of equal parts of the clip."""
    other_stems: tuple[str, ...] = ()
    """Alternative stems of its media files."""

    @property
    def stems(self) -> tuple[str, ...]:
        """All stems of its media files, the preferred one first."""
        return (self.id, *self.other_stems)


@dataclass(frozen=True)
class ClipList:
    """A benchmark's clips, in the order of its lists, and the names of its classes."""

    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    segment_classes: tuple[str, ...] = ()
    segment_seconds: float | None = None
    """The time from a clip's start that the labels of its segments cover."""
    left_out: frozenset[str] = frozenset()
    """The stems of clips that are in the lists but whose classes were not selected."""

    @property
    def in_several_splits(self) -> list[str]:
        """The ids of clips that are listed in more than one split, so that a model is tested on what it has seen."""
        splits: dict[str, set[str]] = {}
        for clip in self.clips:
            splits.setdefault(clip.id, set()).add(clip.split)
        return [name for name, of_clip in splits.items() if len(of_clip) > 1]


def lines(path: Path) -> list[tuple[str, str]]:
    """Reads the non-blank lines of a list, as pairs of the location, for error messages, and the line.

    Raises:
        SplitListError: if the file cannot be read, or has no such line.
    """
    try:
        content = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SplitListError(f"{path}: cannot be read: {reason}") from None
    located = [(f"{path}, line {number}", line.strip()) for number, line in enumerate(content, 1) if line.strip()]
    if not located:
        raise SplitListError(f"{path}: is empty")
    return located


def safe_id(value: str, where: str) -> str:
    """Returns an id after checking that it is a plain file stem, since lists are downloaded and ids become file names.

    Raises:
        SplitListError: if it is anything but 1 to 200 ASCII letters, digits, spaces and ``_-.()``, starting with a
            letter, a digit, ``_`` or ``-``, and without ``..``.
    """
    if len(value) > 200 or ".." in value or not _SAFE_ID.fullmatch(value):
        raise SplitListError(f"{where}: an id must be a plain file name without folders, got {value!r}")
    return value


def held_out(
    clips: Sequence[Clip],
    group: Callable[[Clip], str],
    fraction: float = 0.1,
    by_class: bool = False,
    to: str = "valid",
) -> tuple[Clip, ...]:
    """Moves whole groups of training clips to another split until it contains this fraction of them.

    Groups are moved in the order of the SHA-256 of their names, so the result depends neither on the machine nor on
    the order of the list. With ``by_class`` the fraction is reached in every class separately, where a group belongs
    to the class of its first clip. At least one group stays in training, in every class with ``by_class``.
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
        target = fraction * sum(len(groups[name]) for name in names)
        count = 0
        for name in sorted(names, key=_digest)[:-1]:
            if count >= target:
                break
            moved.add(name)
            count += len(groups[name])
    return tuple(replace(clip, split=to) if clip.split == "train" and group(clip) in moved else clip for clip in clips)


def known_label(name: str, classes: Iterable[str], where: str) -> int:
    """Returns the index of a class.

    Raises:
        SplitListError: if it is not one of the classes.
    """
    known = list(classes)
    if name not in known:
        raise SplitListError(f"{where}: the class must be one of {known}, got {name!r}")
    return known.index(name)


def listed_once(clips: Sequence[Clip], where: Path) -> tuple[Clip, ...]:
    """Returns the clips without repetitions, in the order in which they are first listed.

    Raises:
        SplitListError: if one is in two splits or has two labels.
    """
    seen: dict[str, Clip] = {}
    for clip in clips:
        first = seen.setdefault(clip.id, clip)
        if first.split != clip.split:
            raise SplitListError(f"{where}: {clip.id!r} is listed in {first.split} and in {clip.split}")
        if first.label != clip.label:
            labels = f"{first.label} and {clip.label}"
            raise SplitListError(f"{where}: {clip.id!r} is listed twice in {clip.split}, with the labels {labels}")
    return tuple(seen.values())


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
