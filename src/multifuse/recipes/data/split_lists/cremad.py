"""CREMA-D: OGM-GE's ``train.csv`` and ``test.csv`` of ``1041_TIE_NEU_XX,NEU``; the actor is the id's first part."""

from pathlib import Path
from typing import Literal

from multifuse.recipes.data.split_lists.clips import (
    Clip,
    ClipList,
    SplitListError,
    held_out,
    known_label,
    lines,
    safe_id,
    without_overlap,
)

CLASSES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")


def read_cremad(folder: Path, split: Literal["published", "speakers"] = "published") -> ClipList:
    """Reads the lists; validation is a tenth of the training clips, by actor.

    ``"published"``: the test list as it is, whose actors speak in training too. ``"speakers"``: all clips of both
    lists divided anew, so that an actor is in one split alone, about a tenth for test and a tenth for validation.

    Raises:
        SplitListError: a list that is missing or malformed.
    """
    clips = [clip for name in ("train", "test") for clip in _read(folder / f"{name}.csv", name)]
    clips = list(without_overlap(clips, folder))
    if split == "speakers":
        anew = [Clip(clip.id, clip.label, "train", clip.group) for clip in clips]
        clips = list(held_out(anew, lambda clip: f"test {clip.group}", to="test"))
    return ClipList(held_out(clips, lambda clip: clip.group), CLASSES)


def _read(path: Path, split: str) -> list[Clip]:
    clips = []
    for where, line in lines(path):
        fields = line.split(",")
        if len(fields) != 2 or fields[0].count("_") != 3:
            raise SplitListError(f"{where}: expected 'actor_sentence_emotion_level,class', got {line!r}")
        own = safe_id(fields[0], where)
        clips.append(Clip(own, known_label(fields[1], CLASSES, where), split, own.split("_")[0]))
    return clips
