"""Kinetics-Sounds: OGM-GE's ``my_train.txt`` and ``my_test.txt`` of ``id,seconds,class``."""

import re
from collections.abc import Sequence
from pathlib import Path

from multifuse.recipes.data.split_lists.clips import (
    Clip,
    ClipList,
    SplitListError,
    held_out,
    lines,
    safe_id,
    without_overlap,
)

_TIMES = re.compile("(?P<video>.+?)_(?P<start>[0-9]{1,9})(?:_(?P<end>[0-9]{1,9}))?")


def read_kinetics_sounds(folder: Path, classes: Sequence[str] | None = None) -> ClipList:
    """Reads the lists; validation is a tenth of the training clips of every class, by YouTube video.

    ``classes``: those that are kept, in the order of their labels, by whatever stands in the lists' third field
    (numbers in OGM-GE's); ``None``: all that the training list names, 31 in OGM-GE's.

    Raises:
        SplitListError: a list that is missing or malformed, a class that it does not name.
    """
    rows = [row for name in ("train", "test") for row in _read(folder / f"my_{name}.txt", name)]
    named = sorted({label for _, label in rows}, key=lambda name: (not name.isdigit(), name.zfill(9)))
    kept = named if classes is None else list(classes)
    unknown = [name for name in kept if name not in named]
    if unknown or len(set(kept)) != len(kept):
        raise SplitListError(f"{folder}: the classes must be distinct and among {named}, got {unknown or kept}")
    labels = {name: index for index, name in enumerate(kept)}
    clips = [
        Clip(clip.id, labels[label], clip.split, clip.group, None, clip.other_stems)
        for clip, label in rows
        if label in labels
    ]
    left_out = frozenset(stem for clip, label in rows if label not in labels for stem in (clip.id, *clip.other_stems))
    chosen = held_out(without_overlap(clips, folder), lambda clip: clip.group, by_class=True)
    return ClipList(chosen, tuple(kept), left_out=left_out)


def _read(path: Path, split: str) -> list[tuple[Clip, str]]:
    rows = []
    for where, line in lines(path):
        fields = [field.strip() for field in line.split(",")]
        times = _TIMES.fullmatch(fields[0])
        if len(fields) != 3 or not re.fullmatch("[0-9]{1,9}", fields[1]) or not fields[2] or times is None:
            raise SplitListError(f"{where}: expected 'id,seconds,class', got {line!r}")
        own, video, start = safe_id(fields[0], where), times["video"], int(times["start"])
        end = int(times["end"]) if times["end"] else start + int(fields[1])
        stems = (f"{video}_{start:06d}_{end:06d}", f"{video}_{start}_{end}", f"{video}_{start}")
        rows.append((Clip(own, 0, split, video, None, tuple(s for s in stems if s != own)), fields[2]))
    return rows
