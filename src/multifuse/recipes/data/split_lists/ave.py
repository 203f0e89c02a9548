"""AVE: the official ``trainSet.txt``, ``valSet.txt`` and ``testSet.txt``, as ``category&id&quality&onset&offset``."""

import re
from pathlib import Path

from multifuse.recipes.data.split_lists.clips import Clip, ClipList, SplitListError, known_label, lines, safe_id

SECONDS = 10
_FILES = {"train": "trainSet.txt", "valid": "valSet.txt", "test": "testSet.txt"}


def read_ave(folder: Path) -> ClipList:
    """Reads the lists; the classes are the categories in ``Annotations.txt`` or, without that file, in the lists.

    A clip's ``segments`` are its ten seconds: each has the category's label between onset and offset, and otherwise
    that of the background, which follows the categories (28 in AVE). A video with two events appears twice, as in the
    lists; where that is in two splits, the report of the preparation says so.

    Raises:
        SplitListError: if a list is missing or malformed.
    """
    annotations = folder / "Annotations.txt"
    class_files = [annotations] if annotations.exists() else [folder / name for name in _FILES.values()]
    classes = tuple(sorted({fields[0] for path in class_files for _, fields in _rows(path)}))
    clips = []
    for split, name in _FILES.items():
        for where, (category, video, _, onset, offset) in _rows(folder / name):
            label, background = known_label(category, classes, where), len(classes)
            start, end = _seconds(onset, where), _seconds(offset, where)
            segments = tuple(label if start <= second < end else background for second in range(SECONDS))
            clips.append(Clip(safe_id(video, where), label, split, video, segments))
    return ClipList(tuple(clips), classes, (*classes, "Background"), float(SECONDS))


def _rows(path: Path) -> list[tuple[str, list[str]]]:
    rows = []
    for where, line in lines(path):
        fields = line.split("&")
        if fields[0] == "Category":  # some copies have a header line
            continue
        if len(fields) != 5:
            raise SplitListError(f"{where}: expected 'category&id&quality&onset&offset', got {line!r}")
        rows.append((where, fields))
    return rows


def _seconds(value: str, where: str) -> int:
    if not re.fullmatch("[0-9]{1,2}", value) or int(value) > SECONDS:
        raise SplitListError(f"{where}: onset and offset must be seconds in [0, {SECONDS}], got {value!r}")
    return int(value)
