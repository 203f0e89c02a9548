"""The inputs of a text encoder: stored ids in its vocabulary, lower-cased raw text, or an error."""

from pathlib import Path
from typing import Any

import pytest

from multifuse.processing import MultimodalCollator, TextInput
from multifuse.processing.text_input import lowered
from multifuse.recipes.data.features.mmsa import MMSAFileError, read_mmsa
from multifuse.recipes.data.features.text import token_ids
from multifuse.recipes.data.features.utterances import UtteranceDataset
from tests.files import mmsa_splits, write


class Words:
    """A tokenizer whose vocabulary is not that of bert-base-uncased."""

    model_max_length = 10**30

    def get_vocab(self) -> dict[str, int]:
        return {"the": 0, "film": 1}

    def __call__(self, texts: list[str], truncation: bool, max_length: int) -> dict[str, Any]:
        return {"input_ids": [[len(word) for word in text.split()][:max_length] for text in texts]}


def test_another_vocabulary_uses_the_lower_cased_raw_text(tmp_path: Path) -> None:
    split = read_mmsa(write(tmp_path / "file.pkl", mmsa_splits())).train
    assert token_ids(split, Words(), TextInput(max_tokens=4)) == [[3, 4, 1, 3]] * 6
    assert lowered("A GOOD FILM") == "a good film"
    assert lowered("The Film of USA") == "The Film of USA"


def test_berts_vocabulary_uses_text_bert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multifuse.recipes.data.features.text.has_bert_vocabulary", lambda tokenizer: True)
    monkeypatch.setattr(Words, "__len__", lambda self: 30522, raising=False)
    splits = mmsa_splits()
    ids = token_ids(read_mmsa(write(tmp_path / "file.pkl", splits)).train, Words(), TextInput())
    for row, ours in enumerate(ids):
        stored = splits["train"]["text_bert"][row]
        assert ours == stored[0][stored[1] > 0].tolist()
    splits["train"]["text_bert"][0, 0, 1] = 40_000
    with pytest.raises(MMSAFileError, match=r"text_bert must contain ids in \[0, 30522\)"):
        token_ids(read_mmsa(write(tmp_path / "file.pkl", splits)).train, Words(), TextInput())


def test_missing_text_is_named(tmp_path: Path) -> None:
    splits = mmsa_splits()
    for split in splits.values():
        del split["raw_text"]
    with pytest.raises(MMSAFileError, match="raw_text is missing"):
        token_ids(read_mmsa(write(tmp_path / "file.pkl", splits)).train, Words(), TextInput())


def test_batches_are_padded_to_their_longest_sample_and_masked(tmp_path: Path) -> None:
    split = read_mmsa(write(tmp_path / "file.pkl", mmsa_splits())).train
    dataset = UtteranceDataset(split, ("text", "audio"), [[5, 6, 7], [8], [9, 9], [1], [1], []])
    batch = MultimodalCollator({"text": 3})([dataset[0], dataset[1]])
    assert batch["inputs"]["text"].tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch["mask"]["text"].tolist() == [[True] * 3, [True, False, False]]
    lengths = split.features["audio"].lengths[:2]
    assert batch["inputs"]["audio"].shape == (2, lengths.max(), 5)
    assert batch["mask"]["audio"].sum(1).tolist() == lengths.tolist()
    assert batch["labels"].tolist() == split.labels[:2].tolist()
    assert dataset.lengths == [3, 1, 2, 1, 1, 0]
    empty = MultimodalCollator()([dataset[4], dataset[5]])
    assert empty["inputs"]["text"].tolist() == [[1], [0]]
    assert empty["mask"]["text"].tolist() == [[True], [False]]
