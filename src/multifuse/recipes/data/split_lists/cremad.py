"""CREMA-D: OGM-GE's ``train.csv`` and ``test.csv`` with rows such as ``1041_TIE_NEU_XX,NEU``; 1041 is the actor."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

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

CLASSES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")


def read_cremad(folder: Path, split: Literal["published", "speakers"] = "published") -> ClipList:
    """Reads the lists; the validation split is a tenth of the training clips, by actor.

    ``"published"`` keeps the test list, whose actors also appear in the training list. ``"speakers"`` divides the clips
    of both lists so that every actor is in a single split: about a tenth of the clips are for test, and a tenth of the
    remaining ones for validation.

    Raises:
        SplitListError: if a list is missing or malformed.
    """
    clips = [clip for name in ("train", "test") for clip in _read(folder / f"{name}.csv", name)]
    clips = list(listed_once(clips, folder))
    if split == "speakers":
        undivided = [replace(clip, split="train") for clip in clips]
        clips = list(held_out(undivided, lambda clip: f"test {clip.group}", to="test"))
    return ClipList(held_out(clips, lambda clip: clip.group), CLASSES)


def _read(path: Path, split: str) -> list[Clip]:
    clips = []
    for where, line in lines(path):
        fields = line.split(",")
        if len(fields) != 2 or fields[0].count("_") != 3:
            raise SplitListError(f"{where}: expected 'actor_sentence_emotion_level,class', got {line!r}")
        clip_id = safe_id(fields[0], where)
        clips.append(Clip(clip_id, known_label(fields[1], CLASSES, where), split, clip_id.split("_")[0]))
    return clips
