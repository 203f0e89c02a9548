"""A torch data set of utterances, and the collator that builds the models' batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from multifuse.recipes.data.features.mmsa import SPLITS, MMSAData, MMSASplit
from multifuse.recipes.data.features.text import token_ids


@dataclass(frozen=True)
class Utterance:
    """One sample: token ids, the features (T, D) of each modality without padding, and the label."""

    token_ids: list[int] | None
    features: dict[str, NDArray[np.float32]]
    label: float


class UtteranceDataset(Dataset[Utterance]):
    """The utterances of a split; ``token_ids``, if given, replace its text features as the input of a text encoder.

    ``lengths`` holds the number of text tokens of each utterance, for grouping utterances of similar length in batches.
    """

    def __init__(self, split: MMSASplit, modalities: Sequence[str], token_ids: list[list[int]] | None = None) -> None:
        self.split, self.token_ids = split, token_ids
        self.modalities = [name for name in modalities if name != "text" or token_ids is None]
        self.lengths: list[int] | None = None
        if token_ids is not None:
            self.lengths = [len(ids) for ids in token_ids]
        elif "text" in split.features:
            self.lengths = split.features["text"].lengths.tolist()

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, index: int) -> Utterance:
        features = {}
        for name in self.modalities:
            sequence = self.split.features[name]
            features[name] = sequence.values[index, : sequence.lengths[index]]
        ids = None if self.token_ids is None else self.token_ids[index]
        return Utterance(ids, features, float(self.split.labels[index]))


@dataclass(frozen=True)
class Collator:
    """Pads utterances to the longest in their batch: ``{"inputs", "mask", "labels"}`` for `CLCRForPrediction`."""

    pad_token_id: int = 0

    def __call__(self, utterances: Sequence[Utterance]) -> dict[str, Any]:
        inputs: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        ids = [utterance.token_ids for utterance in utterances]
        if ids[0] is not None:
            inputs["text"], masks["text"] = self.padded_ids([row for row in ids if row is not None])
        for name in utterances[0].features:
            rows = [utterance.features[name] for utterance in utterances]
            inputs[name], masks[name] = _padded_features(rows)
        labels = torch.tensor([utterance.label for utterance in utterances], dtype=torch.float32)
        return {"inputs": inputs, "mask": masks, "labels": labels}

    def padded_ids(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Returns the padded token ids and their mask, (B, T) each."""
        lengths = torch.tensor([len(row) for row in rows])
        longest = max(int(lengths.max()), 1)
        ids = torch.tensor([row + [self.pad_token_id] * (longest - len(row)) for row in rows])
        return ids, torch.arange(longest) < lengths[:, None]


def datasets(
    data: MMSAData, modalities: Sequence[str], tokenizer: Any | None = None
) -> tuple[dict[str, UtteranceDataset], Collator]:
    """Returns the data sets of the splits by name, and their collator; with a tokenizer, text becomes token ids.

    Raises:
        MMSAFileError: if a tokenizer is given, but the data has no text that it can read.
    """
    ids: dict[str, list[list[int]] | None] = dict.fromkeys(SPLITS)
    if tokenizer is not None:
        ids = {name: token_ids(getattr(data, name), tokenizer) for name in SPLITS}
    splits = {name: UtteranceDataset(getattr(data, name), modalities, ids[name]) for name in SPLITS}
    # A tokenizer may have no padding token; any id will do, since padding is masked.
    return splits, Collator(0 if tokenizer is None else tokenizer.pad_token_id or 0)


def _padded_features(rows: list[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    longest = max(int(lengths.max()), 1)
    values = torch.zeros(len(rows), longest, rows[0].shape[1])
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.from_numpy(row)
    return values, torch.arange(longest) < lengths[:, None]
