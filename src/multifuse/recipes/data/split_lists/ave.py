"""AVE: the official ``trainSet.txt``, ``valSet.txt`` and ``testSet.txt`` of ``category&id&quality&onset&offset``."""

import re
from pathlib import Path

from multifuse.recipes.data.split_lists.clips import Clip, ClipList, SplitListError, lines, safe_id

SECONDS = 10
_FILES = {"train": "trainSet.txt", "valid": "valSet.txt", "test": "testSet.txt"}


def read_ave(folder: Path) -> ClipList:
    """Reads the lists. The classes are the categories of ``Annotations.txt``, of the lists where that is missing.

    A clip's ``segments`` are its ten seconds: the category's label from onset to offset, else 28, the background. A
    video with two events is listed, and comes, twice.

    Raises:
        SplitListError: a list that is missing or malformed.
    """
    annotations = folder / "Annotations.txt"
    named = [annotations] if annotations.exists() else [folder / name for name in _FILES.values()]
    classes = tuple(sorted({fields[0] for path in named for _, fields in _rows(path)}))
    clips = []
    for split, name in _FILES.items():
        for where, (category, own, _, onset, offset) in _rows(folder / name):
            if category not in classes:
                raise SplitListError(f"{where}: the class must be one of {list(classes)}, got {category!r}")
            first, end = _seconds(onset, where), _seconds(offset, where)
            label, background = classes.index(category), len(classes)
            segments = tuple(label if first <= second < end else background for second in range(SECONDS))
            clips.append(Clip(safe_id(own, where), label, split, own, segments))
    return ClipList(tuple(clips), classes, (*classes, "Background"))


def _rows(path: Path) -> list[tuple[str, list[str]]]:
    rows = []
    for where, line in lines(path):
        fields = line.split("&")
        if fields[0] == "Category":  # a heading, in some copies
            continue
        if len(fields) != 5:
            raise SplitListError(f"{where}: expected 'category&id&quality&onset&offset', got {line!r}")
        rows.append((where, fields))
    return rows


def _seconds(value: str, where: str) -> int:
    if not re.fullmatch("[0-9]{1,2}", value) or int(value) > SECONDS:
        raise SplitListError(f"{where}: onset and offset must be seconds in [0, {SECONDS}], got {value!r}")
    return int(value)
