"""Padding of feature sequences at either end: nothing is lost in silence, and contradictions are counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifuse.recipes.commands.main import main
from multifuse.recipes.data.features.fields import MMSAFileError
from multifuse.recipes.data.features.mmsa import SPLITS, MMSAData, read_mmsa
from multifuse.recipes.data.features.padding import FeatureSequence, Padding, PaddingCounts, StoredSequence, resolved
from tests.files import Splits, mmsa_splits, write

MODALITIES = ("vision", "audio")


def padded_in_front(splits: Splits, modalities: tuple[str, ...] = MODALITIES) -> Splits:
    """The same samples, with their padding in front; their lengths are those of the file or of the text's mask."""
    for split in splits.values():
        for modality in modalities:
            values = split[modality]
            lengths = split.get(f"{modality}_lengths", split["text_bert"][:, 1].sum(1).astype(int))
            split[modality] = np.zeros_like(values)
            for row, length in enumerate(lengths):
                split[modality][row, values.shape[1] - length :] = values[row, :length]
    return splits


def scripts_lengths(splits: Splits) -> Splits:
    """Lengths as public scripts write them: the first row of zeros, at least 1."""
    for split in splits.values():
        for modality in MODALITIES:
            zero = (split[modality] == 0).all(2)
            split[f"{modality}_lengths"] = [max(int(row.argmax()), 1) for row in zero]
    return splits


def assert_same_features(data: MMSAData, expected: MMSAData, modalities: tuple[str, ...] = MODALITIES) -> None:
    for name in SPLITS:
        for modality in modalities:
            sequence, other = (getattr(each, name).features[modality] for each in (data, expected))
            np.testing.assert_array_equal(sequence.lengths, other.lengths)
            np.testing.assert_array_equal(sequence.values, other.values)


def stored(values: Any, lengths: Any = None) -> StoredSequence:
    array = np.array(values, np.float32)
    ids = [f"sample {row}" for row in range(len(array))]
    return StoredSequence(array, None if lengths is None else np.array(lengths, np.int64), "audio_lengths", ids)


def read(sequence: StoredSequence, padding: Padding | None = None) -> tuple[FeatureSequence, PaddingCounts]:
    sequences, counts = resolved("audio", {"train": sequence}, padding)
    return sequences["train"], counts["train"]


def test_a_sample_padded_in_front_is_the_same_sample_padded_at_the_end(tmp_path: Path) -> None:
    expected = read_mmsa(write(tmp_path / "end.pkl", mmsa_splits(count=12)))
    data = read_mmsa(write(tmp_path / "front.pkl", padded_in_front(mmsa_splits(count=12))))
    assert_same_features(data, expected)
    short = (expected.train.features["audio"].lengths < 11).sum()
    assert data.padding["train"]["audio"].in_front == short > 0
    assert expected.padding["train"]["audio"].in_front == 0


def test_an_aligned_file_padded_in_front_is_read_whole(tmp_path: Path) -> None:
    expected = read_mmsa(write(tmp_path / "end.pkl", mmsa_splits(aligned=True, count=12)))
    splits = padded_in_front(mmsa_splits(aligned=True, count=12), ("text", *MODALITIES))
    assert_same_features(read_mmsa(write(tmp_path / "front.pkl", splits)), expected, ("text", *MODALITIES))


@pytest.mark.parametrize("in_front", [False, True])
def test_rows_of_zeros_at_cls_and_sep_are_tokens_at_either_end(in_front: bool) -> None:
    """Five tokens, the first and the last of them zero; one sample has one row of padding and fits at both ends."""
    values = np.zeros((3, 6, 1), np.float32)
    lengths = [5, 4, 4]
    for row, length in enumerate(lengths):
        start = 6 - length if in_front else 0
        values[row, start + 1 : start + length - 1, 0] = np.arange(1, length - 1)
    sequence, counts = read(stored(values, lengths))
    assert sequence.lengths.tolist() == lengths
    assert sequence.values[0, :, 0].tolist() == [0, 1, 2, 3, 0, 0]
    assert sequence.values[1, :, 0].tolist() == [0, 1, 2, 0, 0, 0]
    assert counts.zero_tokens == 3
    assert counts.in_front == (3 if in_front else 0)


@given(
    sequences=st.lists(st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=0, max_size=6), min_size=1, max_size=5),
    data=st.data(),
)
@settings(deadline=None)
def test_any_padding_at_either_end_gives_the_same_sequences(sequences: list[list[float]], data: st.DataObject) -> None:
    rows = [[1.0, *values, 3.0] for values in sequences]  # rows of zeros between two others are tokens
    total = max(len(row) for row in rows) + data.draw(st.integers(1, 3))
    end, anywhere = np.zeros((2, len(rows), total, 1), np.float32)
    for index, row in enumerate(rows):
        start = data.draw(st.integers(0, total - len(row)))
        end[index, : len(row), 0] = row
        anywhere[index, start : start + len(row), 0] = row
    lengths = [len(row) for row in rows]
    choices: tuple[tuple[Any, Padding | None], ...] = ((None, None), (lengths, None), (lengths, "values"))
    for given_lengths, padding in choices:
        sequence, counts = read(stored(anywhere, given_lengths), padding)
        np.testing.assert_array_equal(sequence.values, end)
        assert sequence.lengths.tolist() == lengths
        assert counts.dropped_rows == counts.contradictions == 0


def test_zeros_inside_the_stored_length_are_tokens() -> None:
    sequence, counts = read(stored([[[1], [0], [2], [0], [0]], [[1], [2], [3], [4], [5]]], [4, 5]))
    assert sequence.lengths.tolist() == [4, 5]
    assert (counts.zero_tokens, counts.contradictions) == (1, 0)


def test_a_sample_of_zeros_is_absent_unless_its_length_says_otherwise() -> None:
    values = [[[0], [0]], [[1], [0]]]
    for lengths, padding, expected in (
        (None, None, [0, 1]),
        ([2, 1], None, [2, 1]),
        ([0, 1], None, [0, 1]),
        ([2, 1], "values", [0, 1]),
    ):
        sequence, counts = read(stored(values, lengths), padding)  # type: ignore[arg-type]
        assert sequence.lengths.tolist() == expected
        assert counts.absent == expected.count(0)


def test_one_vector_a_sample_is_a_token_unless_its_length_is_0() -> None:
    assert read(stored([[[0]], [[1]]]))[0].lengths.tolist() == [1, 1]
    for padding in (None, "values", "lengths", "lengths-from-end"):
        sequence, _ = read(stored([[[0]], [[1]]], [0, 1]), padding)  # type: ignore[arg-type]
        assert sequence.lengths.tolist() == [0, 1]
    with pytest.raises(MMSAFileError, match="contradict each other in 1 of 2 samples of train"):
        read(stored([[[0]], [[1]]], [1, 0]))
    assert read(stored([[[0]], [[1]]], [1, 0]), "values")[0].lengths.tolist() == [1, 1]


def test_what_the_user_believes_is_what_is_read() -> None:
    values = [[[0], [1], [2], [3]]]
    with pytest.raises(MMSAFileError, match=r"leave out 2 of 3 non-zero rows.*has length 2, but .* from 1 to 3 of 4"):
        read(stored(values, [2]))
    rows: dict[Padding, list[float]] = {
        "values": [1, 2, 3, 0],
        "lengths": [0, 1, 0, 0],
        "lengths-from-end": [2, 3, 0, 0],
    }
    for padding, expected in rows.items():
        sequence, counts = read(stored(values, [2]), padding)
        assert sequence.values[0, :, 0].tolist() == expected
        assert counts.contradictions == 1
        assert counts.dropped_rows == 3 - np.count_nonzero(expected)


def test_lengths_that_would_lose_numbers_are_refused_with_counts_until_values_are_believed(tmp_path: Path) -> None:
    expected = read_mmsa(write(tmp_path / "end.pkl", mmsa_splits(count=12)))
    path = write(tmp_path / "front.pkl", scripts_lengths(padded_in_front(mmsa_splits(count=12))))
    with pytest.raises(
        MMSAFileError, match=r"vision_lengths .* in \d+ of 12 samples of train, .*non-zero rows"
    ) as caught:
        read_mmsa(path)
    assert "\n" not in str(caught.value)
    assert "--padding values, lengths or lengths-from-end" in str(caught.value)
    assert_same_features(read_mmsa(path, "values"), expected)


def test_a_text_mask_that_leaves_features_out_is_refused(tmp_path: Path) -> None:
    splits = mmsa_splits(aligned=True)
    splits["valid"]["audio"][2] = 1
    splits["valid"]["text_bert"][2, :, 5:] = 0
    path = write(tmp_path / "file.pkl", splits)
    with pytest.raises(
        MMSAFileError, match=r"the mask of text_bert and the values of audio .* 1 of 6 samples of valid"
    ):
        read_mmsa(path)
    assert read_mmsa(path, modalities=("vision",)).widths == {"vision": 4}


def test_token_ids_outside_of_their_mask_are_refused(tmp_path: Path) -> None:
    splits = mmsa_splits()
    text_bert = splits["test"]["text_bert"]
    text_bert[:, [1, 2]] = text_bert[:, [2, 1]]  # ids, segments, mask
    path = write(tmp_path / "file.pkl", splits)
    with pytest.raises(MMSAFileError, match=r"test.text_bert has \d+ token ids outside of its mask, in 6 of 6 samples"):
        read_mmsa(path)
    believed = read_mmsa(path, "values").test.text_bert
    assert believed is not None
    np.testing.assert_array_equal(believed[:, 1] > 0, text_bert[:, 2] > 0)


def test_lengths_other_than_the_text_mask_are_counted(tmp_path: Path) -> None:
    splits = mmsa_splits(aligned=True)
    lengths = splits["train"]["text_bert"][:, 1].sum(1)
    splits["train"]["audio_lengths"] = np.where(np.arange(6) == 4, 8, lengths)
    assert lengths[4] < 8
    counts = read_mmsa(write(tmp_path / "file.pkl", splits)).padding["train"]["audio"]
    assert (counts.mask_differs, counts.zero_tokens) == (1, 1)


def test_train_and_evaluate_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "front.pkl", scripts_lengths(padded_in_front(mmsa_splits(count=12))))
    run = tmp_path / "run"
    train = ["train", "mosi", "--data", str(path), "--output", str(run), "--epochs", "1", "--device", "cpu"]
    assert main(train) == 2
    error = capsys.readouterr().err
    assert "Say which to believe with --padding" in error
    assert error.count("\n") == 1
    assert not run.exists()
    assert main([*train, "--padding", "values"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    count = metrics["padding"]["train"]["audio"]["contradictions"]
    assert 0 < count <= 12
    printed = f"Samples of audio whose lengths and values contradict each other: train {count}, valid "
    assert printed in capsys.readouterr().out
    assert metrics["believed_padding"] == "values"
    assert metrics["padding"]["train"]["audio"]["dropped_rows"] == 0
    evaluate = ["evaluate", "--missing", "--model", str(run), "--data", str(path), "--draws", "1"]
    assert main([*evaluate, "--output", str(tmp_path / "refused")]) == 2
    assert "Say which to believe with --padding" in capsys.readouterr().err
    assert main([*evaluate, "--output", str(tmp_path / "missing"), "--padding", "values"]) == 0
