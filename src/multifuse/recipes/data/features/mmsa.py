"""Reads MMSA feature files, the format in which CMU-MOSI and CMU-MOSEI are distributed.

A file is a pickled dict of ``train``, ``valid`` and ``test``, each a dict of arrays over N utterances; docs/data.md
describes the fields, and the other layouts that are read. Any subset of the modalities is allowed, and all sizes are
read from the file.
"""

import pickle
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multifuse._internal.file_kinds import FileKind, head_of, kind_of, text_kind_of
from multifuse.processing import FeatureInput
from multifuse.recipes.data.features import safe_pickle
from multifuse.recipes.data.features.field_names import FEATURES, check_names
from multifuse.recipes.data.features.fields import MMSAFileError, finite_reals, integers, numbers, reals, strings
from multifuse.recipes.data.features.layouts import SPLITS, in_mmsa_layout
from multifuse.recipes.data.features.padding import (
    FeatureSequence,
    Padding,
    PaddingCounts,
    StoredSequence,
    resolved,
    resolved_text_mask,
)

__all__ = [
    "FEATURES",
    "SPLITS",
    "FeatureSequence",
    "MMSAData",
    "MMSAFileError",
    "MMSASplit",
    "read_mmsa",
    "standardised",
]
_LONGEST_MESSAGE = 800


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
    padding: dict[str, dict[str, PaddingCounts]]
    """How the sequences are padded, by split and modality; also for ``text_bert``, if the file has it."""
    ignored: tuple[str, ...]
    """Fields and keys of the file that are not read, and that MMSA files do not usually have."""
    statistics: Mapping[str, FeatureInput] = field(default_factory=dict)
    """By modality, what the features have been standardised by; empty if they have not been."""

    @property
    def widths(self) -> dict[str, int]:
        """The width D of every modality that has stored features."""
        return {name: sequence.values.shape[2] for name, sequence in self.train.features.items()}

    def longest(self, modality: str) -> int:
        """Returns the largest number of tokens of a sample in any split."""
        return max(int(getattr(self, name).features[modality].lengths.max()) for name in SPLITS)


def read_mmsa(path: str | Path, padding: Padding | None = None, modalities: Collection[str] = FEATURES) -> MMSAData:
    """Reads a feature file, without executing any code that it contains.

    Args:
        path: the file.
        padding: what to believe where lengths and values contradict each other; ``None`` refuses such a file.
        modalities: the stored features to read.

    Raises:
        MMSAFileError: if the file is missing, not a pickle, hostile or truncated, or an array has the wrong shape or
            values; if it is a known kind of other file, the message names the kind.
    """
    path = Path(path)
    content = _unpickled(path)
    try:
        return _data(content, padding, modalities)
    except MMSAFileError as error:
        raise MMSAFileError(f"{path}: {_brief(error)}") from None


def _unpickled(path: Path) -> object:
    try:
        head = head_of(path)
        if (kind := kind_of(head)) is not None:
            raise _wrong_kind(path, kind)
        return safe_pickle.load(path)
    except safe_pickle.UnsafePickleError as error:
        # The first letters of a table may be those of a pickle that names a function.
        if (kind := text_kind_of(head)) is not None and kind.role == "table":
            raise _wrong_kind(path, kind) from None
        raise MMSAFileError(
            f"{path}: refused, a feature file may contain only arrays, but {_brief(error)}; write it again with numpy "
            "arrays, dicts, lists, strings and numbers only"
        ) from None
    except pickle.UnpicklingError as error:
        if (kind := text_kind_of(head)) is not None:
            raise _wrong_kind(path, kind) from None
        raise MMSAFileError(f"{path}: cannot be read as a pickle: {_brief(error)}") from None
    except OSError as error:
        raise MMSAFileError(f"{path}: cannot be opened: {error.strerror or error}") from None


def _wrong_kind(path: Path, kind: FileKind) -> MMSAFileError:
    return MMSAFileError(f"{path}: cannot be read as a pickle: it is {kind.name}; {kind.advice}")


def _brief(error: Exception) -> str:
    """Returns an error's message as one short line: a hostile file may put names and values of any length in it."""
    return textwrap.shorten(str(error), _LONGEST_MESSAGE, placeholder=" ...")


@dataclass(frozen=True)
class _StoredSplit:
    """A split whose features are still padded as in the file, and the number of their non-finite values."""

    split: MMSASplit
    features: dict[str, StoredSequence]
    replaced: dict[str, int]
    text_padding: PaddingCounts | None
    ignored: tuple[str, ...]


def _data(content: object, padding: Padding | None, modalities: Collection[str]) -> MMSAData:
    layout = in_mmsa_layout(content)
    stored = {name: _stored(name, layout.splits[name], padding, modalities) for name in SPLITS}
    reference = _layout(stored["train"])
    for name, split in stored.items():
        if _layout(split) != reference:
            raise MMSAFileError(f"{name} must have the fields and widths of train, {reference}, got {_layout(split)}")
    if not reference and all(layout.splits["train"].get(modality) is None for modality in FEATURES):
        raise MMSAFileError(f"must contain at least one of {[*FEATURES, 'text_bert', 'raw_text']}")
    features: dict[str, dict[str, FeatureSequence]] = {name: {} for name in SPLITS}
    counts: dict[str, dict[str, PaddingCounts]] = {name: {} for name in SPLITS}
    for modality in stored["train"].features:
        sequences, counted = resolved(modality, {name: stored[name].features[modality] for name in SPLITS}, padding)
        for name in SPLITS:
            features[name][modality], counts[name][modality] = sequences[name], counted[name]
    for name, split in stored.items():
        if split.text_padding is not None:
            counts[name]["text_bert"] = split.text_padding
    ignored = [*layout.ignored, *(f"{name}.{field}" for name, split in stored.items() for field in split.ignored)]
    train, valid, test = (replace(stored[name].split, features=features[name]) for name in SPLITS)
    return MMSAData(
        train,
        valid,
        test,
        replaced={name: sum(split.replaced[name] for split in stored.values()) for name in stored["train"].features},
        padding=counts,
        ignored=tuple(ignored),
    )


def _layout(stored: _StoredSplit) -> dict[str, int]:
    layout = {name: sequence.values.shape[2] for name, sequence in stored.features.items()}
    if stored.split.text_bert is not None:
        layout["text_bert"] = stored.split.text_bert.shape[2]
    if stored.split.raw_text is not None:
        layout["raw_text"] = 1
    return layout


def _stored(
    name: str, fields: Mapping[str, object], padding: Padding | None, modalities: Collection[str]
) -> _StoredSplit:
    ignored = check_names(name, fields)
    count = len(numbers(f"{name}.regression_labels", fields.get("regression_labels"), 1))
    if count == 0:
        raise MMSAFileError(f"{name}.regression_labels is empty")
    ids = strings(f"{name}.id", fields.get("id"), count)
    labels = finite_reals(f"{name}.regression_labels", fields["regression_labels"], ids)
    text_bert, text_padding = None, None
    if fields.get("text_bert") is not None:
        text_bert = integers(f"{name}.text_bert", fields["text_bert"], 3, ids)
        if text_bert.shape[1] != 3:
            raise MMSAFileError(f"{name}.text_bert must have shape (N, 3, T), got {text_bert.shape}")
        text_bert, text_padding = resolved_text_mask(name, text_bert, ids, padding)
    features, replaced = {}, {}
    for modality in FEATURES:
        if modality not in modalities or fields.get(modality) is None:
            continue
        values = reals(f"{name}.{modality}", fields[modality], 3, ids)
        finite = np.isfinite(values)
        replaced[modality] = int(values.size - finite.sum())
        values[~finite] = 0
        lengths = fields.get(f"{modality}_lengths")
        features[modality] = _sequence(f"{name}.{modality}_lengths", lengths, values, text_bert, ids)
    raw_text = None if fields.get("raw_text") is None else strings(f"{name}.raw_text", fields["raw_text"], count, ids)
    return _StoredSplit(MMSASplit(ids, labels, {}, raw_text, text_bert), features, replaced, text_padding, ignored)


def _sequence(
    name: str,
    stored: object,
    values: NDArray[np.float32],
    text_bert: NDArray[np.int64] | None,
    ids: tuple[str, ...],
) -> StoredSequence:
    """Returns features with their stored lengths; else, in an aligned file, with the text's."""
    total = values.shape[1]
    aligned = total > 1 and text_bert is not None and text_bert.shape[2] == total
    tokens = (text_bert[:, 1] > 0).sum(1).astype(np.int64) if aligned and text_bert is not None else None
    if stored is None:
        return StoredSequence(values, tokens, "the mask of text_bert", ids)
    lengths = integers(name, stored, 1, ids)
    outside = np.flatnonzero((lengths < 0) | (lengths > total))
    if len(outside):
        row = int(outside[0])
        raise MMSAFileError(f"{name} must be in [0, {total}], got {lengths[row]} for id {ids[row]!r}")
    differing = 0 if tokens is None else int((tokens != lengths).sum())
    return StoredSequence(values, lengths, name.split(".", 1)[1], ids, differing)


def standardised(data: MMSAData, statistics: Mapping[str, FeatureInput] | None = None) -> MMSAData:
    """Standardises every feature by statistics, by default those of the real tokens of the training split."""
    if statistics is None:
        features = data.train.features
        statistics = {name: FeatureInput.of(sequence.values[sequence.mask]) for name, sequence in features.items()}
    train, valid, test = (_standardised(getattr(data, name), statistics) for name in SPLITS)
    return replace(data, train=train, valid=valid, test=test, statistics=statistics)


def _standardised(split: MMSASplit, statistics: Mapping[str, FeatureInput]) -> MMSASplit:
    features = {
        name: replace(sequence, values=statistics[name].standardised(sequence.values) * sequence.mask[..., None])
        for name, sequence in split.features.items()
    }
    return replace(split, features=features)
