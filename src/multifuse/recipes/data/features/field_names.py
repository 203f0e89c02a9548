"""The fields of a split by name: those that are read, and modalities, lengths and labels under other names."""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from multifuse.recipes.data.features.descriptions import described, quoted
from multifuse.recipes.data.features.fields import MMSAFileError

FEATURES = ("text", "vision", "audio")
_LENGTHS = tuple(f"{name}_lengths" for name in FEATURES)
READ = (*FEATURES, *_LENGTHS, "regression_labels", "id", "text_bert", "raw_text")
NOT_READ = ("annotations", "classification_labels")
"""Fields of MMSA that every file may have, and that are not needed."""
_OTHER_NAMES = {
    "text": ("texts", "language", "linguistic", "words", "word", "glove", "bert", "lexical"),
    "vision": ("video", "videos", "visual", "visuals", "image", "images", "face", "facet", "openface", "frames", "v"),
    "audio": ("acoustic", "acoustics", "speech", "sound", "covarep", "opensmile", "librosa", "a"),
    "raw_text": ("rawtext", "raw_texts", "transcript", "transcripts", "sentence", "sentences", "utterance"),
    "id": ("ids", "segment", "segments", "video_id", "vid", "names"),
    "text_bert": ("bert_text", "textbert", "text_berts"),
}
_LENGTH_NAME = re.compile(r"(?P<modality>.+?)_?(lengths?|lens?|seq_?lens?|num_frames)")


def check_names(split: str, fields: Mapping[str, object]) -> tuple[str, ...]:
    """Returns the names of the fields that are ignored, after checking that none of them is needed.

    Raises:
        MMSAFileError: if a modality, its lengths or the transcripts have another name; the message says which to use.
    """
    known = (*READ, *NOT_READ)
    ignored = tuple(name for name, value in fields.items() if value is not None and name not in known)
    for name in ignored:
        meant = _meant(name, fields)
        if meant is not None:
            shape = described(fields[name], 0)
            raise MMSAFileError(f"{split} has the field {quoted(name)}, {shape}, which is not read: rename it {meant}")
    return ignored


def _meant(name: str, fields: Mapping[str, object]) -> str | None:
    """Returns what a field should be called if something would be lost without it, as words that follow "rename it"."""
    absent = [field for field in READ if fields.get(field) is None]
    field = _field_meant(name, fields[name])
    if field is not None:
        return repr(field) if field in absent else None
    names = [field for field in FEATURES if field in absent]
    if names and _is_features(fields[name]):
        return f"{' or '.join(map(repr, names))} if it is a modality, or remove it"
    return None


def _field_meant(name: str, value: object) -> str | None:
    """Returns the field that another name stands for, ``None`` if there is none or the value cannot be its content."""
    field = _candidate(name)
    if field in FEATURES and not _is_features(value):
        return "raw_text" if _are_strings(value) else None
    return field


def _candidate(name: str) -> str | None:
    """Returns the field that another name stands for, if any."""
    lowered = name.strip().lower().replace(" ", "_").replace("-", "_")
    for field, others in _OTHER_NAMES.items():
        if lowered == field or lowered in others:
            return field
    if lowered in READ:
        return lowered
    match = _LENGTH_NAME.fullmatch(lowered)
    modality = None if match is None else _candidate(match["modality"])
    return f"{modality}_lengths" if modality in FEATURES else None


def _is_features(value: object) -> bool:
    """Returns whether a value is an array (N, T, D) of numbers, one of (N, D), or a list of arrays (T, D)."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value.ndim in (2, 3)
    first = next(iter(value.flat if isinstance(value, np.ndarray) else value), None) if _is_list(value) else None
    return isinstance(first, np.ndarray) and first.ndim in (1, 2) and first.dtype.kind in "biuf"


def _is_list(value: Any) -> TypeGuard[list[object] | tuple[object, ...] | np.ndarray[Any, Any]]:
    is_list = isinstance(value, np.ndarray) and value.dtype == object and value.ndim > 0
    return is_list or isinstance(value, list | tuple)


def _are_strings(value: object) -> bool:
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        return value.ndim == 1
    return _is_list(value) and len(value) > 0 and isinstance(next(iter(value)), str | bytes)
