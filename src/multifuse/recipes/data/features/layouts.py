"""Brings feature files of other layouts into MMSA's: names of splits, keys in bytes, and lists of samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multifuse.recipes.data.features.descriptions import as_text, described, quoted
from multifuse.recipes.data.features.fields import MMSAFileError
from multifuse.recipes.data.features.sample_lists import fields_of_samples

SPLITS = ("train", "valid", "test")
_SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("dev", "val", "validation", "development"), "valid"),
    "training": "train",
    "testing": "test",
}


@dataclass(frozen=True)
class Layout:
    """The splits of a file, each a dict of fields, and the names of what is beside them and is not read."""

    splits: dict[str, dict[str, object]]
    ignored: tuple[str, ...]


def in_mmsa_layout(content: object) -> Layout:
    """Returns the splits of a file whose meaning is unambiguous.

    Raises:
        MMSAFileError: if there are no such splits; the message describes what the file holds.
    """
    if not isinstance(content, dict):
        raise MMSAFileError(f"must contain a dict of {SPLITS}, got {described(content)}")
    named = _with_text_keys("the file", content)
    splits: dict[str, object] = {}
    origins: dict[str, str] = {}
    for key, value in named.items():
        name = _SPLIT_NAMES.get(key.strip().lower())
        if name is None:
            continue
        if name in splits:
            raise MMSAFileError(f"must contain one split {name!r}, got both {origins[name]!r} and {key!r}")
        splits[name], origins[name] = value, key
    missing = [name for name in SPLITS if not isinstance(splits.get(name), dict | list | tuple)]
    if missing:
        raise MMSAFileError(f"must contain the splits {SPLITS} as dicts, lacks {missing}; it is {described(content)}")
    ignored = tuple(key for key in named if key not in origins.values())
    return Layout({name: _fields(name, splits[name]) for name in SPLITS}, ignored)


def _fields(split: str, content: object) -> dict[str, object]:
    if isinstance(content, list | tuple):
        return fields_of_samples(split, content)
    assert isinstance(content, dict)
    fields: dict[str, object] = dict(_with_text_keys(split, content))
    if fields.get("regression_labels") is None:
        fields.update(_labels(split, fields))
    return {**fields, **_one_per_sample(fields), **_joined_ids(fields)}


def _with_text_keys(name: str, content: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns a dict with its keys as text; files that went through Python 2 may have them in bytes."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        text = as_text(key)
        if text in result:
            raise MMSAFileError(f"{name} has the key {quoted(text)} twice, as text and as bytes")
        result[text] = value
    return result


def _labels(split: str, fields: dict[str, object]) -> dict[str, object]:
    """Returns the field ``labels`` of MulT's files as regression labels, if it can be nothing else.

    Raises:
        MMSAFileError: if it may hold classes, or has several numbers per sample.
    """
    names = [name for name in ("labels", "label") if fields.get(name) is not None]
    if len(names) != 1:
        return {}
    value = fields[names[0]]
    array = _array_or_none(value)
    if array is None or array.dtype.kind not in "biuf" or array.size == 0:
        return {}
    where = f"{split}.{names[0]}"
    if array.size != len(array):
        raise MMSAFileError(
            f"{split}.regression_labels is missing, and {where} has several numbers per sample, its shape is "
            f"{array.shape}: put those of sentiment into 'regression_labels', (N,)"
        )
    if array.dtype.kind != "f" or bool((array == np.rint(array)).all()):
        raise MMSAFileError(
            f"{split}.regression_labels is missing, and {where} has whole numbers only, which may be classes: rename "
            "it 'regression_labels' if they are scores"
        )
    del fields[names[0]]
    return {"regression_labels": array}


def _array_or_none(value: object) -> np.ndarray[Any, Any] | None:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.ndim else None


def _one_per_sample(fields: Mapping[str, object]) -> dict[str, object]:
    """Returns labels and lengths of shape (N, 1) or (N, 1, 1) as (N,)."""
    result: dict[str, object] = {}
    for name in ("regression_labels", "text_lengths", "vision_lengths", "audio_lengths"):
        value = fields.get(name)
        if isinstance(value, np.ndarray) and value.ndim > 1 and value.size == len(value):
            result[name] = value.reshape(-1)
    return result


def _joined_ids(fields: Mapping[str, object]) -> dict[str, object]:
    """Returns ids of several columns, (video, start, end) in MulT's files, joined to one string each."""
    value = fields.get("id")
    if isinstance(value, list | tuple) and value and all(isinstance(row, list | tuple) for row in value):
        rows: list[Any] = [list(row) for row in value]
    elif isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] >= 1:
        rows = value.tolist()
    else:
        return {}
    if any(not row or any(isinstance(part, list | tuple | dict) for part in row) for row in rows):
        return {}
    return {"id": [row[0] if len(row) == 1 else "$_$".join(map(as_text, row)) for row in rows]}
