"""Reads splits that are lists of samples, as scripts of the CMU Multimodal SDK write them.

A sample is ``((words, visual, acoustic), label, segment)``. The words are strings or vectors; a fourth item of the
first tuple, the words as strings, is read where they are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.features.descriptions import as_text, described
from multifuse.recipes.data.features.fields import MMSAFileError, decoded

_MOST_VALUES, _MOST_PADDING = 1 << 24, 64
"""Padding to one length may take this many values, or this many times the values of the samples."""


@dataclass(frozen=True)
class _Sample:
    words: tuple[str, ...] | None
    features: dict[str, NDArray[Any]]
    label: float
    id: str
    has_indices: bool
    """Whether the words are numbers, which are not read: their vocabulary is unknown."""


def fields_of_samples(split: str, samples: Sequence[object]) -> dict[str, object]:
    """Returns a split as MMSA's fields: sequences padded at the end, with their lengths.

    Raises:
        MMSAFileError: if a sample is not as above, or has other modalities or widths than the first.
    """
    if not samples:
        raise MMSAFileError(f"{split} is empty")
    parsed = [_sample(split, index, sample) for index, sample in enumerate(samples)]
    reference = _layout(parsed[0])
    for index, sample in enumerate(parsed):
        if _layout(sample) != reference:
            raise MMSAFileError(
                f"{split}[{index}] must have the fields and widths of the first sample, {reference}, "
                f"got {_layout(sample)}"
            )
    fields: dict[str, object] = {
        "id": [sample.id for sample in parsed],
        "regression_labels": np.array([sample.label for sample in parsed]),
    }
    if any(sample.has_indices for sample in parsed):
        fields["word_indices"] = True  # of an unknown vocabulary: reported as a field that is not read
    if parsed[0].words is not None:
        fields["raw_text"] = [" ".join(sample.words or ()) for sample in parsed]
    for modality in parsed[0].features:
        rows = [sample.features[modality] for sample in parsed]
        fields[f"{modality}_lengths"] = np.array([len(row) for row in rows])
        fields[modality] = _padded(f"{split}, {modality}", rows)
    return fields


def _layout(sample: _Sample) -> dict[str, int]:
    words = {} if sample.words is None else {"raw_text": 1}
    return {**words, **{name: values.shape[1] for name, values in sample.features.items()}}


def _sample(split: str, index: int, sample: object) -> _Sample:
    if not isinstance(sample, list | tuple) or len(sample) != 3:
        raise _refusal(split, index, sample)
    streams, label, segment = sample
    if not isinstance(streams, list | tuple) or len(streams) not in (3, 4):
        raise _refusal(split, index, sample)
    words, *features = streams[:3]
    sequences = {"vision": _sequence(features[0]), "audio": _sequence(features[1])}
    strings = _strings(words)
    has_indices = False
    if strings is None:
        vectors = _sequence(words)
        if vectors is not None:
            sequences = {"text": vectors, **sequences}
        has_indices = vectors is None
        if len(streams) == 4:
            strings = _strings(streams[3])
    score, name = _label(label), _id(segment)
    if any(values is None for values in sequences.values()) or score is None or name is None:
        raise _refusal(split, index, sample)
    if strings is None and "text" not in sequences:
        raise MMSAFileError(
            f"{split}[{index}] has words that are neither strings nor vectors, and no strings beside them: "
            f"{described(sample, 3)}"
        )
    kept = {key: values for key, values in sequences.items() if values is not None}
    return _Sample(strings, kept, score, name, has_indices)


def _refusal(split: str, index: int, sample: object) -> MMSAFileError:
    return MMSAFileError(
        f"{split}[{index}] must be a tuple of ((words, visual, acoustic), label, segment), got {described(sample, 3)}"
    )


def _sequence(value: object) -> NDArray[Any] | None:
    """Returns an array (T, D) of numbers, of at least one row."""
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "biuf" and value.size:
        return value
    return None


def _strings(value: object) -> tuple[str, ...] | None:
    items = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
    if not isinstance(items, list | tuple) or not items or not all(isinstance(item, str | bytes) for item in items):
        return None
    try:
        return tuple(map(decoded, items))
    except UnicodeDecodeError:
        return None


def _label(value: object) -> float | None:
    """Returns the one number that a label consists of; several, as MOSEI's with emotions, are ambiguous."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return float(array.reshape(-1)[0]) if array.dtype.kind in "biuf" and array.size == 1 else None


def _id(value: object) -> str | None:
    if isinstance(value, str | bytes | int):
        return as_text(value)
    parts = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(parts, list | tuple) or not parts:
        return None
    return "$_$".join(map(as_text, parts))


def _padded(name: str, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    longest, width = max(len(row) for row in rows), rows[0].shape[1]
    size = len(rows) * longest * width
    if size > max(_MOST_VALUES, _MOST_PADDING * sum(row.size for row in rows)):
        raise MMSAFileError(f"{name}: one sample has {longest} rows, so padding to its length takes {size} values")
    kind = np.float32 if all(row.dtype.itemsize <= 4 and row.dtype.kind == "f" for row in rows) else np.float64
    values = np.zeros((len(rows), longest, width), kind)
    for index, row in enumerate(rows):
        values[index, : len(row)] = row
    return values
