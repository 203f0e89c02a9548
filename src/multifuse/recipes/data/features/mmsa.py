"""Reads MMSA feature files, the format in which CMU-MOSI and CMU-MOSEI are distributed.

A file is a pickled dict of ``train``, ``valid`` and ``test``, each a dict of arrays over N utterances; docs/data.md
describes the fields. Any subset of the modalities is allowed, and all sizes are read from the file.
"""

import pickle
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.features import safe_pickle

SPLITS = ("train", "valid", "test")
FEATURES = ("text", "vision", "audio")
_LONGEST_MESSAGE = 400


class MMSAFileError(ValueError):
    """Raised when a feature file cannot be used; the message is one line that names the file and the problem."""


@dataclass(frozen=True)
class FeatureSequence:
    """One modality of a split: finite values (N, T, D), 0 at padding, and lengths (N,), the numbers of real tokens."""

    values: NDArray[np.float32]
    lengths: NDArray[np.int64]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask (N, T) of the real tokens."""
        return np.arange(self.values.shape[1]) < self.lengths[:, None]


@dataclass(frozen=True)
class MMSASplit:
    """One split of N utterances."""

    ids: tuple[str, ...]
    labels: NDArray[np.float32]
    features: dict[str, FeatureSequence]
    raw_text: tuple[str, ...] | None
    text_bert: NDArray[np.int64] | None
    """Ids in bert-base-uncased's vocabulary, mask and segments, (N, 3, T)."""


@dataclass(frozen=True)
class MMSAData:
    """The content of a feature file."""

    train: MMSASplit
    valid: MMSASplit
    test: MMSASplit
    replaced: dict[str, int]
    """The number of non-finite values (such as -inf in audio) that were set to 0, by modality."""

    @property
    def widths(self) -> dict[str, int]:
        """The width D of every modality that has stored features."""
        return {name: sequence.values.shape[2] for name, sequence in self.train.features.items()}


def read_mmsa(path: str | Path) -> MMSAData:
    """Reads a feature file, without executing any code that it contains.

    Raises:
        MMSAFileError: if the file is missing, not a pickle, hostile or truncated, or an array has the wrong shape.
    """
    path = Path(path)
    try:
        content = safe_pickle.load(path)
    except safe_pickle.UnsafePickleError as error:
        raise MMSAFileError(f"{path}: refused, a feature file may contain only arrays, but {_brief(error)}") from None
    except pickle.UnpicklingError as error:
        raise MMSAFileError(f"{path}: cannot be read as a pickle: {_brief(error)}") from None
    except OSError as error:
        raise MMSAFileError(f"{path}: cannot be opened: {error.strerror or error}") from None
    try:
        return _data(content)
    except MMSAFileError as error:
        raise MMSAFileError(f"{path}: {_brief(error)}") from None


def _brief(error: Exception) -> str:
    """Returns an error's message as one short line: a hostile file may put names and values of any length in it."""
    return textwrap.shorten(str(error), _LONGEST_MESSAGE, placeholder=" ...")


def _data(content: object) -> MMSAData:
    if not isinstance(content, dict):
        raise MMSAFileError(f"must contain a dict of {SPLITS}, got a {type(content).__name__}")
    missing = [name for name in SPLITS if not isinstance(content.get(name), dict)]
    if missing:
        raise MMSAFileError(f"must contain the splits {SPLITS} as dicts, lacks {missing}")
    replaced = dict.fromkeys(FEATURES, 0)
    splits = {name: _split(name, content[name], replaced) for name in SPLITS}
    reference = _layout(splits["train"])
    for name, split in splits.items():
        if _layout(split) != reference:
            raise MMSAFileError(f"{name} must have the fields and widths of train, {reference}, got {_layout(split)}")
    if not reference:
        raise MMSAFileError(f"must contain at least one of {[*FEATURES, 'text_bert', 'raw_text']}")
    return MMSAData(**splits, replaced={name: count for name, count in replaced.items() if name in reference})


def _layout(split: MMSASplit) -> dict[str, int]:
    layout = {name: sequence.values.shape[2] for name, sequence in split.features.items()}
    if split.text_bert is not None:
        layout["text_bert"] = split.text_bert.shape[2]
    if split.raw_text is not None:
        layout["raw_text"] = 1
    return layout


def _split(name: str, fields: Mapping[str, Any], replaced: dict[str, int]) -> MMSASplit:
    labels = _array(f"{name}.regression_labels", fields.get("regression_labels"), np.float32, 1)
    count = len(labels)
    if count == 0:
        raise MMSAFileError(f"{name}.regression_labels is empty")
    if not np.isfinite(labels).all():
        raise MMSAFileError(f"{name}.regression_labels must be finite, got {labels[~np.isfinite(labels)][0]}")
    ids = _strings(f"{name}.id", fields.get("id"), count)
    text_bert = None
    if fields.get("text_bert") is not None:
        text_bert = _array(f"{name}.text_bert", fields["text_bert"], np.int64, 3, count)
        if text_bert.shape[1] != 3:
            raise MMSAFileError(f"{name}.text_bert must have shape (N, 3, T), got {text_bert.shape}")
    features = {}
    for modality in FEATURES:
        if fields.get(modality) is None:
            continue
        values = _array(f"{name}.{modality}", fields[modality], np.float32, 3, count)
        finite = np.isfinite(values)
        replaced[modality] += int(values.size - finite.sum())
        values = np.where(finite, values, np.float32(0))
        lengths = _lengths(f"{name}.{modality}_lengths", fields.get(f"{modality}_lengths"), values, text_bert)
        sequence = FeatureSequence(values, lengths)
        features[modality] = replace(sequence, values=values * sequence.mask[..., None])
    raw_text = None if fields.get("raw_text") is None else _strings(f"{name}.raw_text", fields["raw_text"], count)
    return MMSASplit(ids, labels, features, raw_text, text_bert)


def _array(name: str, value: object, dtype: type[Any], ndim: int, count: int | None = None) -> NDArray[Any]:
    if value is None:
        raise MMSAFileError(f"{name} is missing")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"the element type is {array.dtype}")
        with np.errstate(invalid="ignore", over="ignore"):
            array = array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise MMSAFileError(f"{name} must be an array of numbers: {error}") from None
    if array.ndim != ndim or (count is not None and len(array) != count) or 0 in array.shape[1:]:
        expected = "N, T, D" if ndim == 3 else "N,"
        with_count = "" if count is None else f" with N = {count}"
        raise MMSAFileError(f"{name} must have shape ({expected}){with_count}, got {array.shape}")
    return array


def _strings(name: str, value: object, count: int) -> tuple[str, ...]:
    if value is None:
        raise MMSAFileError(f"{name} is missing")
    if not isinstance(value, np.ndarray | list | tuple) or np.ndim(value) != 1 or len(value) != count:
        raise MMSAFileError(f"{name} must be a list or array of {count} strings, got a {type(value).__name__}")
    items = value.tolist() if isinstance(value, np.ndarray) else value
    for item in items:
        if not isinstance(item, str | bytes | int | float):
            raise MMSAFileError(f"{name} must contain strings, got a {type(item).__name__}")
    try:
        return tuple(item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in items)
    except ValueError as error:  # Python refuses to print an integer of thousands of digits
        raise MMSAFileError(f"{name} must contain strings: {error}") from None


def _lengths(name: str, stored: object, values: NDArray[Any], text_bert: NDArray[Any] | None) -> NDArray[np.int64]:
    """Returns the stored lengths; else, in an aligned file, the text's; else the lengths without trailing zero rows."""
    total = values.shape[1]
    if stored is not None:
        lengths = _array(name, stored, np.int64, 1, len(values))
        invalid = lengths[(lengths < 0) | (lengths > total)]
        if len(invalid):
            raise MMSAFileError(f"{name} must be in [0, {total}], got {invalid[0]}")
        return lengths
    if total == 1:
        return np.ones(len(values), np.int64)
    if text_bert is not None and text_bert.shape[2] == total:
        return np.asarray((text_bert[:, 1] > 0).sum(1), np.int64)
    nonzero = (values != 0).any(2)
    return np.where(nonzero.any(1), total - nonzero[:, ::-1].argmax(1), 0).astype(np.int64)


def standardised(data: MMSAData) -> MMSAData:
    """Standardises every feature to mean 0 and standard deviation 1 over the real tokens of the training split."""
    splits = {name: getattr(data, name) for name in SPLITS}
    for modality in data.widths:
        train = data.train.features[modality]
        tokens = train.values[train.mask].astype(np.float64)
        if len(tokens) == 0:
            continue
        mean, deviation = tokens.mean(0), tokens.std(0)
        deviation = np.where(deviation > 1e-8 * (1 + np.abs(mean)), deviation, 1.0)
        for name, split in splits.items():
            sequence = split.features[modality]
            values = ((sequence.values - mean) / deviation).astype(np.float32) * sequence.mask[..., None]
            splits[name] = replace(split, features={**split.features, modality: replace(sequence, values=values)})
    return replace(data, **splits)
