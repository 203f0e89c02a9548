"""Kinetics-Sounds: OGM-GE's ``my_train.txt`` and ``my_test.txt`` with rows of ``id,seconds,class``."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from multifuse.recipes.data.split_lists.clips import (
    Clip,
    ClipList,
    SplitListError,
    held_out,
    lines,
    listed_once,
    safe_id,
)

_TIMES = re.compile("(?P<video>.+?)_(?P<start>[0-9]{1,9})(?:_(?P<end>[0-9]{1,9}))?")


def read_kinetics_sounds(folder: Path, classes: Sequence[str] | None = None) -> ClipList:
    """Reads the lists; the validation split is a tenth of the training clips of every class, by YouTube video.

    ``classes`` selects classes, in the order of their labels, by the third field of the lists (a number in OGM-GE's);
    ``None`` keeps all classes in the lists (31 in OGM-GE's).

    Raises:
        SplitListError: if a list is missing or malformed, or ``classes`` contains an unknown or repeated class.
    """
    rows = [row for name in ("train", "test") for row in _read(folder / f"my_{name}.txt", name)]
    known = sorted({name for _, name in rows}, key=lambda name: (not name.isdigit(), name.zfill(9)))
    kept = known if classes is None else list(classes)
    unknown = [name for name in kept if name not in known]
    if unknown or len(set(kept)) != len(kept):
        raise SplitListError(f"{folder}: the classes must be distinct and among {known}, got {unknown or kept}")
    labels = {name: index for index, name in enumerate(kept)}
    clips = [replace(clip, label=labels[name]) for clip, name in rows if name in labels]
    left_out = frozenset(stem for clip, name in rows if name not in labels for stem in clip.stems)
    split_clips = held_out(listed_once(clips, folder), lambda clip: clip.group, by_class=True)
    return ClipList(split_clips, tuple(kept), left_out=left_out)


def _read(path: Path, split: str) -> list[tuple[Clip, str]]:
    rows = []
    for where, line in lines(path):
        fields = [field.strip() for field in line.split(",")]
        times = _TIMES.fullmatch(fields[0])
        if len(fields) != 3 or not re.fullmatch("[0-9]{1,9}", fields[1]) or not fields[2] or times is None:
            raise SplitListError(f"{where}: expected 'id,seconds,class', got {line!r}")
        clip_id, video, start = safe_id(fields[0], where), times["video"], int(times["start"])
        end = int(times["end"]) if times["end"] else start + int(fields[1])
        stems = (f"{video}_{start:06d}_{end:06d}", f"{video}_{start}_{end}", f"{video}_{start}")
        rows.append((Clip(clip_id, 0, split, video, None, tuple(s for s in stems if s != clip_id)), fields[2]))
    return rows
