"""MultimodalCollator: pads the samples of a batch, modality by modality, to what the models take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from multifuse._internal import checks

_SHOWN = 5


@dataclass(frozen=True)
class Sample:
    """One sample: its inputs by modality, without padding, and its label.

    Args:
        inputs: token ids (T,), features (T, D), frames or flow (F, C, H, W), a spectrogram (1, frequency, time) or a
            waveform (samples,). A modality that the sample lacks is left out.
        label: a number, a class index, a list of either, or the token ids of a text that a model should generate;
            ``None`` if it is not known.

    Example:
        >>> Sample({"text": torch.tensor([5, 6]), "audio": torch.ones(3, 74)}, label=-0.8).label
        -0.8
    """

    inputs: Mapping[str, Tensor]
    label: Any = None


@dataclass(frozen=True)
class MultimodalCollator:
    """Joins samples into a batch: ``{"inputs", "mask", "labels"}``, the arguments of `CLCRForPrediction`.

    Token ids, features and frames are padded to the longest of the batch, and have a mask (B, T). A sound is one input
    of a fixed size, and has a mask (B, 1). A sample that lacks a modality has padding there, and one that all samples
    lack is left out. Labels are left out unless all samples have one; lists of integers (token ids, class indices) of
    different lengths are filled up with -100, which the classification losses ignore. It can be the ``collate_fn`` of a
    `DataLoader` and the ``data_collator`` of a Trainer.

    Args:
        pad_token_ids: by modality, the id that fills up token ids, 0 by default. Padding is masked, so any id in the
            vocabulary will do.

    Raises:
        ValueError: inputs of a modality that do not fit together, by name; no inputs at all; labels that do not fit
            together, such as lists of floats of different lengths.

    Example:
        >>> samples = [Sample({"audio": torch.randn(length, 5)}, label=0.5) for length in (3, 7)]
        >>> batch = MultimodalCollator()(samples)
        >>> batch["inputs"]["audio"].shape, batch["mask"]["audio"].sum(dim=1), batch["labels"]
        (torch.Size([2, 7, 5]), tensor([3, 7]), tensor([0.5000, 0.5000]))
    """

    pad_token_ids: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        if not samples:
            raise ValueError("samples must hold at least one sample, got none")
        inputs: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        named = list(dict.fromkeys(name for sample in samples for name in sample.inputs))
        for name in named:
            rows = [sample.inputs.get(name) for sample in samples]
            if any(row is not None for row in rows):
                inputs[name], masks[name] = self._joined(name, rows)
        if not inputs:
            without = f"None for each of {named}" if named else "no modality"
            raise ValueError(f"samples must hold inputs of at least one modality, got {without} in all {len(samples)}")
        batch: dict[str, Any] = {"inputs": inputs, "mask": masks}
        labels = [sample.label for sample in samples]
        if all(label is not None for label in labels):
            batch["labels"] = _joined_labels(labels)
        return batch

    def _joined(self, name: str, rows: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        given = [row for row in rows if row is not None]
        for row in given:
            if not checks.tensor(f"inputs[{name!r}]", row).ndim:
                raise ValueError(f"inputs[{name!r}] must have at least one dimension, got a scalar tensor")
        like = next((row for row in given if len(row)), given[0])
        is_sequence = _is_sequence(like)
        start = 1 if is_sequence else 0  # the first dimension that may not differ
        for row in given:
            fits = row.ndim == like.ndim and row.shape[start:] == like.shape[start:]
            if row.dtype != like.dtype or (len(row) and not fits):
                lengths = " but for their lengths" if is_sequence else ""
                both = f"{_described(like)} and {_described(row)}"
                raise ValueError(f"inputs[{name!r}] must be alike{lengths}, got {both}")
        if is_sequence:
            filled = [like[:0] if row is None or not len(row) else row for row in rows]
            return padded(filled, self.pad_token_ids.get(name, 0))
        batch = torch.stack([torch.zeros_like(like) if row is None else row for row in rows])
        return batch, torch.tensor([[row is not None] for row in rows])


def _joined_labels(labels: list[Any]) -> Tensor:
    """Returns labels as one tensor; lists of integers of different lengths are padded with -100."""
    rows = [_label(index, label) for index, label in enumerate(labels)]
    given = [row.dtype for row in rows if row.numel()]  # an empty list would be taken for one of floats
    dtype = reduce(torch.promote_types, given) if given else torch.long
    rows = [row.to(dtype) for row in rows]
    if len({row.shape for row in rows}) == 1:
        return torch.stack(rows)
    if any(row.ndim != 1 for row in rows):
        raise ValueError(f"labels must be alike, got the shapes {_shown(tuple(row.shape) for row in rows)}")
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        lengths = _shown(len(row) for row in rows)
        raise ValueError(f"labels must have one length, unless they are integers, got {dtype} of the lengths {lengths}")
    return padded(rows, -100)[0]


def _label(index: int, label: Any) -> Tensor:
    try:
        return torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"labels must be numbers or lists of numbers, got {label!r:.80} at sample {index}") from None


def _shown(values: Iterable[Any]) -> str:
    """Lists values, each once, and no more than `_SHOWN` of them."""
    distinct = list(dict.fromkeys(values))
    return ", ".join(map(str, distinct[:_SHOWN])) + ", ..." * (len(distinct) > _SHOWN)


def padded(rows: Sequence[Tensor], value: float = 0) -> tuple[Tensor, Tensor]:
    """Pads sequences (T_i, ...) to the longest, but at least to one token: (B, T, ...), and their mask (B, T)."""
    lengths = torch.tensor([len(row) for row in rows])
    longest = max(int(lengths.max()), 1)
    batch = rows[0].new_full((len(rows), longest, *rows[0].shape[1:]), value)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
    return batch, torch.arange(longest) < lengths[:, None]


def _is_sequence(values: Tensor) -> bool:
    """Returns whether an input has tokens or frames, instead of being a single sound."""
    return values.ndim in (2, 4) or (values.ndim == 1 and not values.is_floating_point())


def _described(values: Tensor) -> str:
    return f"{tuple(values.shape)} {str(values.dtype).removeprefix('torch.')}"
