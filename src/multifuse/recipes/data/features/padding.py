"""Finds the real tokens of padded feature sequences from stored lengths, text masks and rows of zeros."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.features.descriptions import quoted
from multifuse.recipes.data.features.fields import MMSAFileError

Padding = Literal["values", "lengths", "lengths-from-end"]
"""What to believe about padding, if lengths and values contradict each other; docs/data.md explains the choices."""


@dataclass(frozen=True)
class FeatureSequence:
    """One modality of a split: finite values (N, T, D), 0 at padding, and lengths (N,), the numbers of real tokens.

    The real tokens come first, also where the file pads in front.
    """

    values: NDArray[np.float32]
    lengths: NDArray[np.int64]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask (N, T) of the real tokens."""
        return np.arange(self.values.shape[1]) < self.lengths[:, None]


@dataclass(frozen=True)
class StoredSequence:
    """One modality of a split as a file stores it, padded at either end."""

    values: NDArray[np.float32]
    lengths: NDArray[np.int64] | None
    """The stored lengths or those of the text's mask; ``None`` if the file has neither."""
    source: str
    """Where the lengths come from, for messages."""
    ids: Sequence[str]
    mask_differs: int = 0
    """The number of samples whose stored length is not that of the text's mask, in an aligned file."""


@dataclass(frozen=True)
class PaddingCounts:
    """How one modality of a split is padded: numbers of samples, and of rows."""

    in_front: int
    """Samples with padding in front of their tokens; these have been moved to the start."""
    absent: int
    """Samples without a token."""
    zero_tokens: int
    """Samples in which the lengths count rows of zeros at an end as tokens."""
    contradictions: int
    """Samples in which non-zero rows are outside of what the lengths keep."""
    dropped_rows: int
    """Non-zero rows that were set to 0, because the user chose to believe the lengths."""
    mask_differs: int
    """Samples whose stored length is not the number of tokens in the text's mask, in an aligned file."""


@dataclass(frozen=True)
class _Spans:
    """Where the non-zero rows of each sample are: from ``start`` up to ``end``, both 0 if there are none."""

    nonzero: NDArray[np.bool_]
    """(N, T)."""
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @property
    def total(self) -> int:
        return int(self.nonzero.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.end - self.start


def resolved(
    modality: str, stored: Mapping[str, StoredSequence], padding: Padding | None
) -> tuple[dict[str, FeatureSequence], dict[str, PaddingCounts]]:
    """Returns the sequences of one modality in all splits, moved to the start, and the counts of how they are padded.

    Raises:
        MMSAFileError: if non-zero rows are outside of what the lengths keep, and ``padding`` does not say which to
            believe; the message counts rows and samples.
    """
    spans = {name: _spans(sequence.values) for name, sequence in stored.items()}
    if padding is None:
        _check_contradictions(modality, stored, spans)
    pads_in_front = _pads_in_front(stored, spans)
    sequences, counts = {}, {}
    for name, sequence in stored.items():
        start, lengths = _windows(sequence, spans[name], padding, pads_in_front)
        counts[name] = _counts(sequence, spans[name], start, lengths)
        sequences[name] = _moved(sequence.values, start, lengths)
    return sequences, counts


def _spans(values: NDArray[np.float32]) -> _Spans:
    nonzero = (values != 0).any(2)
    total = values.shape[1]
    present = nonzero.any(1)
    start = np.where(present, nonzero.argmax(1), 0)
    end = np.where(present, total - nonzero[:, ::-1].argmax(1), 0)
    return _Spans(nonzero, start.astype(np.int64), end.astype(np.int64))


def _contradicts(sequence: StoredSequence, spans: _Spans) -> NDArray[np.bool_]:
    """Returns which samples have more rows, from the first to the last non-zero one, than their length."""
    if sequence.lengths is None:
        return np.zeros(len(spans.start), np.bool_)
    return np.asarray(spans.lengths > sequence.lengths)


def _fits(sequence: StoredSequence, spans: _Spans) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns in which samples all non-zero rows are among the first ``length`` ones, and among the last."""
    lengths = spans.lengths if sequence.lengths is None else sequence.lengths
    empty = spans.lengths == 0
    return spans.end <= lengths, empty | (spans.start >= spans.total - lengths)


def _pads_in_front(stored: Mapping[str, StoredSequence], spans: Mapping[str, _Spans]) -> bool:
    """Returns whether most samples that fit at one end only are padded in front, which decides for those that fit both.

    An aligned file may store zeros at [CLS] and [SEP]: such a sample, with one row of padding, fits at both ends.
    """
    surplus = 0
    for name, sequence in stored.items():
        at_start, at_end = _fits(sequence, spans[name])
        surplus += int((at_end & ~at_start).sum()) - int((at_start & ~at_end).sum())
    return surplus > 0


def _windows(
    sequence: StoredSequence, spans: _Spans, padding: Padding | None, pads_in_front: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the first row of each sample's tokens, and their number."""
    stored = sequence.lengths
    zeros = np.zeros_like(spans.start)
    if spans.total == 1:  # one vector per sample: it is a token even if it is zero, unless its length says otherwise
        lengths = np.ones_like(spans.start) if stored is None else stored
        return zeros, np.maximum(lengths, spans.lengths) if padding in (None, "values") else lengths
    if stored is None or padding == "values":
        return spans.start, spans.lengths
    if padding == "lengths":
        return zeros, stored
    if padding == "lengths-from-end":
        return spans.total - stored, stored
    at_start, at_end = _fits(sequence, spans)
    from_end = at_end & (~at_start | pads_in_front)
    inside = ~at_start & ~at_end  # padded at both ends
    start = np.where(inside, spans.start, np.where(from_end, spans.total - stored, 0))
    return start, np.where(inside, spans.lengths, stored)


def _moved(values: NDArray[np.float32], start: NDArray[np.int64], lengths: NDArray[np.int64]) -> FeatureSequence:
    """Returns the tokens of each sample at the start, followed by zeros; writes into ``values``."""
    for row in np.flatnonzero((start > 0) & (lengths > 0)):
        values[row, : lengths[row]] = values[row, start[row] : start[row] + lengths[row]].copy()
    sequence = FeatureSequence(values, lengths)
    values *= sequence.mask[..., None]
    return sequence


def _counts(
    sequence: StoredSequence, spans: _Spans, start: NDArray[np.int64], lengths: NDArray[np.int64]
) -> PaddingCounts:
    rows = np.arange(spans.total)
    kept = (rows >= start[:, None]) & (rows < (start + lengths)[:, None])
    return PaddingCounts(
        in_front=int(((start > 0) & (lengths > 0)).sum()),
        absent=int((lengths == 0).sum()),
        zero_tokens=int((lengths > spans.lengths).sum()) if spans.total > 1 else 0,
        contradictions=int(_contradicts(sequence, spans).sum()),
        dropped_rows=int((spans.nonzero & ~kept).sum()),
        mask_differs=sequence.mask_differs,
    )


def _check_contradictions(modality: str, stored: Mapping[str, StoredSequence], spans: Mapping[str, _Spans]) -> None:
    wrong = {name: _contradicts(sequence, spans[name]) for name, sequence in stored.items()}
    samples = {name: int(rows.sum()) for name, rows in wrong.items() if rows.any()}
    if not samples:
        return
    outside = sum(_rows_outside(sequence, spans[name]) for name, sequence in stored.items())
    nonzero = sum(int(span.nonzero.sum()) for span in spans.values())
    split = next(iter(samples))
    row = int(np.flatnonzero(wrong[split])[0])
    sequence, span = stored[split], spans[split]
    lengths: Any = sequence.lengths
    counts = ", ".join(f"{count} of {len(wrong[name])} samples of {name}" for name, count in samples.items())
    raise MMSAFileError(
        f"{sequence.source} and the values of {modality} contradict each other in {counts}: the first `length` rows "
        f"leave out {outside} of {nonzero} non-zero rows; the first such sample, {split}.id "
        f"{quoted(sequence.ids[row])}, has length {lengths[row]}, but non-zero rows from {span.start[row]} to "
        f"{span.end[row] - 1} of {span.total}. Say which to believe with --padding values, lengths or lengths-from-end"
    )


def _rows_outside(sequence: StoredSequence, spans: _Spans) -> int:
    """Returns the number of non-zero rows beyond the first ``length`` ones."""
    if sequence.lengths is None:
        return 0
    beyond = np.arange(spans.total) >= sequence.lengths[:, None]
    return int((spans.nonzero & beyond).sum())


def resolved_text_mask(
    split: str, text_bert: NDArray[np.int64], ids: Sequence[str], padding: Padding | None
) -> tuple[NDArray[np.int64], PaddingCounts]:
    """Returns ``text_bert`` (N, 3, T) with a mask that keeps all tokens, and the counts of what it left out.

    One id that fills all places outside of the mask is padding, whatever it is.

    Raises:
        MMSAFileError: if tokens are outside of the mask, and ``padding`` does not say which to believe.
    """
    outside = text_bert[:, 1] <= 0
    pads = np.unique(text_bert[:, 0][outside])
    dropped = outside & (text_bert[:, 0] != 0) if len(pads) > 1 else np.zeros_like(outside)
    samples = int(dropped.any(1).sum())
    if samples and padding is None:
        row = int(np.flatnonzero(dropped.any(1))[0])
        raise MMSAFileError(
            f"{split}.text_bert has {int(dropped.sum())} token ids outside of its mask, in {samples} of {len(ids)} "
            f"samples, the first {split}.id {quoted(ids[row])}: its rows must be ids, mask and segments. Say which "
            "to believe with --padding values or lengths"
        )
    if padding == "values":
        text_bert = text_bert.copy()
        text_bert[:, 1] = np.where(dropped, 1, text_bert[:, 1])
        return text_bert, PaddingCounts(0, 0, 0, samples, 0, 0)
    return text_bert, PaddingCounts(0, 0, 0, samples, int(dropped.sum()), 0)
