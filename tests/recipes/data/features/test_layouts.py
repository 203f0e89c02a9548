"""Pickles of other layouts are read where their meaning is unambiguous, and otherwise described as found."""

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multifuse.recipes.data.features import safe_pickle
from multifuse.recipes.data.features.mmsa import SPLITS, MMSAData, MMSAFileError, read_mmsa
from tests.files import mmsa_splits, write


def assert_equal(data: MMSAData, expected: MMSAData) -> None:
    for name in SPLITS:
        split, other = getattr(data, name), getattr(expected, name)
        assert split.ids == other.ids
        assert split.raw_text == other.raw_text
        np.testing.assert_array_equal(split.labels, other.labels)
        assert list(split.features) == list(other.features)
        for modality, sequence in split.features.items():
            np.testing.assert_array_equal(sequence.values, other.features[modality].values)
            np.testing.assert_array_equal(sequence.lengths, other.features[modality].lengths)


def in_bytes(splits: Any) -> Any:
    return {name.encode(): {key.encode(): value for key, value in split.items()} for name, split in splits.items()}


def in_default_dicts(splits: Any) -> Any:
    result: Any = defaultdict(dict, {name: defaultdict(list, split) for name, split in splits.items()})
    return result


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "change",
    [
        in_bytes,
        in_default_dicts,
        lambda splits: OrderedDict((name, OrderedDict(split)) for name, split in splits.items()),
        lambda splits: {"train": splits["train"], "dev": splits["valid"], "test": splits["test"]},
        lambda splits: {"Train": splits["train"], "val": splits["valid"], "TEST": splits["test"]},
    ],
)
def test_keys_in_bytes_other_names_of_splits_and_other_dicts_are_read(
    tmp_path: Path, change: Any, protocol: int
) -> None:
    expected = read_mmsa(write(tmp_path / "mmsa.pkl", mmsa_splits()))
    assert_equal(read_mmsa(write(tmp_path / "file.pkl", change(mmsa_splits()), protocol)), expected)


def test_an_ordered_dict_of_python_2_is_read_and_a_factory_is_never_called(tmp_path: Path) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'a'\naI1\naatR.")
    assert safe_pickle.load(path) == {"a": 1}
    path.write_bytes(b"cbuiltins\nlist\n(tR.")
    with pytest.raises(pickle.UnpicklingError, match="it calls a type"):
        safe_pickle.load(path)
    path.write_bytes(b"ccollections\ndefaultdict\n(cos\nsystem\ntR.")
    with pytest.raises(pickle.UnpicklingError, match=r"names os\.system"):
        safe_pickle.load(path)


def test_files_of_mult_are_read(tmp_path: Path) -> None:
    """Labels (N, 1, 1) under "labels", and ids of three columns in bytes."""
    splits = mmsa_splits()
    expected = read_mmsa(write(tmp_path / "mmsa.pkl", splits))
    for split in splits.values():
        split["labels"] = split.pop("regression_labels")[:, None, None]
        split["id"] = np.array([[f"video{row}", "1.5", "2.5"] for row in range(6)], dtype="S8")
    data = read_mmsa(write(tmp_path / "mult.pkl", splits))
    np.testing.assert_array_equal(data.train.labels, expected.train.labels)
    assert data.train.ids[1] == "video1$_$1.5$_$2.5"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((6, 1, 7)), r"train.labels has several numbers per sample, its shape is \(6, 1, 7\)"),
        (np.arange(6) % 3, "train.labels has whole numbers only, which may be classes"),
        (np.array(0.5), "train.regression_labels is missing$"),
    ],
)
def test_labels_that_may_be_something_else_are_refused(tmp_path: Path, labels: Any, message: str) -> None:
    splits = mmsa_splits()
    for split in splits.values():
        del split["regression_labels"]
        split["labels"] = labels
    with pytest.raises(MMSAFileError, match=message):
        read_mmsa(write(tmp_path / "file.pkl", splits))


def sample_lists(words: str = "strings") -> dict[str, list[Any]]:
    random = np.random.default_rng(0)
    splits: dict[str, list[Any]] = {}
    for name in ("train", "dev", "test"):
        splits[name] = []
        for row in range(4):
            length = row + 2
            strings = [f"word{index}" for index in range(length)]
            streams: list[Any] = [random.normal(size=(length, width)).astype(np.float32) for width in (3, 4, 5)]
            if words == "strings":
                streams[0] = strings
            elif words == "indices":
                streams = [np.arange(length), *streams[1:], strings]
            splits[name].append((tuple(streams), np.array([[row / 2 - 0.7]]), f"video{row}[{row}]"))
    return splits


def test_lists_of_samples_are_read_with_their_lengths(tmp_path: Path) -> None:
    content = sample_lists()
    data = read_mmsa(write(tmp_path / "file.pkl", content))
    assert data.widths == {"vision": 4, "audio": 5}
    assert data.valid.ids[2] == "video2[2]"
    assert data.valid.raw_text is not None
    assert data.valid.raw_text[1] == "word0 word1 word2"
    np.testing.assert_allclose(data.valid.labels, [-0.7, -0.2, 0.3, 0.8], rtol=1e-6)
    vision = data.valid.features["vision"]
    assert vision.lengths.tolist() == [2, 3, 4, 5]
    np.testing.assert_array_equal(vision.values[2][:4], content["dev"][2][0][1])


def test_words_as_vectors_are_text_features_and_indices_are_reported_as_not_read(tmp_path: Path) -> None:
    vectors = read_mmsa(write(tmp_path / "vectors.pkl", sample_lists("vectors")))
    assert vectors.widths == {"text": 3, "vision": 4, "audio": 5}
    indices = read_mmsa(write(tmp_path / "indices.pkl", sample_lists("indices")))
    assert indices.widths == {"vision": 4, "audio": 5}
    assert indices.train.raw_text is not None
    assert indices.ignored == tuple(f"{split}.word_indices" for split in SPLITS)


WITHOUT_SPLITS: dict[Any, Any] = {"text": np.zeros((3, 2)), b"labels": [1, 2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            WITHOUT_SPLITS,
            r"it is a dict with 'text': an array \(3, 2\) of float64, b'labels'",
        ),
        ({**mmsa_splits(), "dev": {}}, "must contain one split 'valid', got both 'valid' and 'dev'"),
        (dict([*mmsa_splits().items(), (b"train", {})]), "the file has the key 'train' twice, as text and as bytes"),
        ({**mmsa_splits(), "test": [1, 2]}, r"test\[0\] must be a tuple of .*, got 1"),
        ({"train": [(1, 2)], "dev": [], "test": []}, r"train\[0\] must be .*, got a tuple of \(1, 2\)"),
        (
            {"train": np.zeros(3), "valid": {}, "test": {}},
            r"lacks \['train'\]; it is a dict with 'train': an array \(3,\)",
        ),
        ([{"a": 1}], "got a list of 1, the first a dict with 'a': 1"),
    ],
)
def test_what_cannot_be_read_is_described_as_found(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(MMSAFileError, match=message) as caught:
        read_mmsa(write(tmp_path / "file.pkl", content))
    assert "\n" not in str(caught.value)


def test_a_label_of_several_numbers_and_other_widths_are_refused(tmp_path: Path) -> None:
    content = sample_lists()
    streams, _, segment = content["dev"][1]
    content["dev"][1] = (streams, np.zeros((1, 7)), segment)
    with pytest.raises(MMSAFileError, match=r"valid\[1\] must be a tuple .* an array \(1, 7\) of float64"):
        read_mmsa(write(tmp_path / "file.pkl", content))
    content["dev"][1] = ((streams[0], streams[2], streams[1]), 0.5, segment)
    with pytest.raises(MMSAFileError, match=r"valid\[1\] must have the fields and widths of the first sample"):
        read_mmsa(write(tmp_path / "file.pkl", content))
    content = sample_lists()
    content["train"] = [((["a"], np.zeros((1, 4)), np.zeros((1, 5))), 0.5, "a")] * 20_000
    content["train"][0] = ((["a"], np.ones((100_000, 4)), np.zeros((1, 5))), 0.5, "a")
    with pytest.raises(
        MMSAFileError, match=r"train, vision: one sample has 100000 rows, so padding .* takes 8000000000"
    ):
        read_mmsa(write(tmp_path / "file.pkl", content))
