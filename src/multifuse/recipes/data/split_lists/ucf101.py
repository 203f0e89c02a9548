"""UCF101: the official ``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``."""

import re
from pathlib import Path, PurePosixPath

from multifuse.recipes.data.split_lists.clips import (
    Clip,
    ClipList,
    SplitListError,
    held_out,
    known_label,
    lines,
    listed_once,
    safe_id,
)

_GROUP = re.compile(r"v_\w+_(g\d+)_c\d+")


def read_ucf101(folder: Path, fold: int = 1) -> ClipList:
    """Reads one of the three official folds; the validation split is a tenth of every class's training clips, by group.

    A group (``g08``) consists of the clips cut from one video of a class.

    Raises:
        SplitListError: if a list is missing or malformed, or ``fold`` is not 1, 2 or 3.
    """
    if fold not in (1, 2, 3):
        raise SplitListError(f"fold must be 1, 2 or 3, got {fold}")
    classes = _classes(folder / "classInd.txt")
    clips = [
        _clip(where, line, split, classes)
        for split in ("train", "test")
        for where, line in lines(folder / f"{split}list0{fold}.txt")
    ]
    clips = list(listed_once(clips, folder))
    return ClipList(held_out(clips, lambda clip: clip.group, by_class=True), classes)


def _classes(path: Path) -> tuple[str, ...]:
    classes = []
    for number, (where, line) in enumerate(lines(path), 1):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(number):
            raise SplitListError(f"{where}: expected '{number} class', got {line!r}")
        classes.append(fields[1])
    return tuple(classes)


def _clip(where: str, line: str, split: str, classes: tuple[str, ...]) -> Clip:
    """Parses a line such as ``Archery/v_Archery_g08_c01.avi 3``; test lists omit the class number."""
    name, *number = line.split()
    folder, _, file = name.rpartition("/")
    label = known_label(folder, classes, where)
    clip_id = safe_id(PurePosixPath(file).stem, where)
    match = _GROUP.fullmatch(clip_id)
    if match is None or (number and number != [str(label + 1)]) or len(number) > 1:
        raise SplitListError(f"{where}: expected 'class/v_class_g01_c01.avi' and the class's number, got {line!r}")
    return Clip(clip_id, label, split, f"{folder} {match[1]}")
