"""A torch data set of utterances."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from multifuse.processing import Sample, TextInput
from multifuse.recipes.data.features.mmsa import SPLITS, MMSAData, MMSASplit
from multifuse.recipes.data.features.text import token_ids

if TYPE_CHECKING:
    from multifuse.processing.processor import CLCRProcessor


class UtteranceDataset(Dataset[Sample]):
    """The utterances of a split, one sample each, without padding.

    ``token_ids``, if given, replace the text features as the input of a text encoder. ``lengths`` holds the number of
    text tokens of each utterance, for grouping utterances of similar length in batches.
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

    def __getitem__(self, index: int) -> Sample:
        inputs = {} if self.token_ids is None else {"text": torch.tensor(self.token_ids[index], dtype=torch.long)}
        for name in self.modalities:
            sequence = self.split.features[name]
            inputs[name] = torch.from_numpy(sequence.values[index, : sequence.lengths[index]])
        return Sample(inputs, float(self.split.labels[index]))


def datasets(
    data: MMSAData, modalities: Sequence[str], processor: "CLCRProcessor | None" = None
) -> dict[str, UtteranceDataset]:
    """Returns the data sets of the splits by name; text becomes token ids if the processor reads it so.

    Raises:
        MMSAFileError: if it does, but the data has no text that its tokenizer can read.
    """
    ids: dict[str, list[list[int]] | None] = dict.fromkeys(SPLITS)
    text = None if processor is None else processor.modalities.get("text")
    if processor is not None and isinstance(text, TextInput):
        ids = {name: token_ids(getattr(data, name), processor.tokenizer, text) for name in SPLITS}
    return {name: UtteranceDataset(getattr(data, name), modalities, ids[name]) for name in SPLITS}
