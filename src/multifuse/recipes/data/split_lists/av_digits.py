"""Spoken and written digits: ``labels.csv`` with the columns id, label, speaker and split."""

import csv
from pathlib import Path

from multifuse.recipes.data.split_lists.clips import (
    SPLITS,
    Clip,
    ClipList,
    SplitListError,
    known_label,
    listed_once,
    safe_id,
)

CLASSES = tuple("0123456789")


def read_av_digits(folder: Path) -> ClipList:
    """Reads the list, which assigns every clip to one of the three splits.

    Raises:
        SplitListError: if the list is missing or malformed.
    """
    path = folder / "labels.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise SplitListError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not rows or not {"id", "label", "speaker", "split"} <= rows[0].keys():
        raise SplitListError(f"{path}: must contain rows with the columns id, label, speaker and split")
    clips = []
    for number, row in enumerate(rows, 2):
        where = f"{path}, line {number}"
        if row["split"] not in SPLITS:
            raise SplitListError(f"{where}: split must be one of {SPLITS}, got {row['split']!r}")
        label = known_label(row["label"] or "", CLASSES, where)
        clips.append(Clip(safe_id(row["id"] or "", where), label, row["split"], row["speaker"] or ""))
    return ClipList(listed_once(clips, path), CLASSES)
