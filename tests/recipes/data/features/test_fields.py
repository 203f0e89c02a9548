"""Values that a feature file should not have are refused by field, sample and value; none is turned into another."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multifuse.recipes.data.features.mmsa import MMSAFileError, read_mmsa
from tests.files import Splits, mmsa_splits, write

SAMPLE = "video1$_$1"


def with_value(field: str, value: Any) -> Splits:
    """A file whose second training sample has this value in a field."""
    splits = mmsa_splits()
    items = list(splits["train"][field])
    items[1] = value
    array = np.empty(len(items), object)
    array[:] = items
    splits["train"][field] = items if field.endswith("_lengths") else array
    return splits


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "raw_text",
            float("nan"),
            f"train.raw_text must contain strings, but .* for id '{SAMPLE}' is missing: it is nan",
        ),
        ("raw_text", None, f"train.raw_text must contain strings, but .* for id '{SAMPLE}' is missing: it is None"),
        ("raw_text", "nan", f"train.raw_text must contain strings, but .* for id '{SAMPLE}' is 'nan', a missing value"),
        ("raw_text", 2.5, f"train.raw_text must contain strings, got 2.5 for id '{SAMPLE}'"),
        ("raw_text", True, f"train.raw_text must contain strings, got True for id '{SAMPLE}'"),
        ("raw_text", b"caf\xe9", f"train.raw_text must be encoded as UTF-8, got .* for id '{SAMPLE}'"),
        ("id", float("nan"), "train.id must contain strings, but the value at index 1 is missing: it is nan"),
        ("audio_lengths", 7.9, f"train.audio_lengths must contain whole numbers, got 7.9 for id '{SAMPLE}'"),
        ("audio_lengths", float("nan"), f"train.audio_lengths must contain whole numbers, got nan for id '{SAMPLE}'"),
        ("audio_lengths", float("inf"), f"train.audio_lengths must contain whole numbers, got inf for id '{SAMPLE}'"),
        ("audio_lengths", np.uint64(2**63 + 1), rf"train.audio_lengths must be below 2\*\*63, got .* '{SAMPLE}'"),
        ("audio_lengths", -1, rf"train.audio_lengths must be in \[0, 11\], got -1 for id '{SAMPLE}'"),
        ("regression_labels", "2.4", "train.regression_labels must be an array of numbers, got '2.4' at index 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_sample(tmp_path: Path, field: str, value: Any, message: str) -> None:
    path = write(tmp_path / "file.pkl", with_value(field, value))
    with pytest.raises(MMSAFileError, match=message.replace("$", r"\$")) as caught:
        read_mmsa(path)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_out_of_range_or_not_whole_are_named(tmp_path: Path) -> None:
    for field, value, message in (
        ("regression_labels", np.nan, "train.regression_labels must be finite, got nan for id 'video3"),
        ("audio", 1e300, "train.audio must be within the range of float32, got 1e.300 for id 'video3"),
        ("text_bert", 101.5, "train.text_bert must contain whole numbers, got 101.5 for id 'video3"),
    ):
        splits = mmsa_splits()
        array = splits["train"][field] = splits["train"][field].astype(np.float64)
        array.reshape(6, -1)[3, 0] = value
        with pytest.raises(MMSAFileError, match=message):
            read_mmsa(write(tmp_path / "file.pkl", splits))


def test_small_and_unsigned_types_are_read_as_the_numbers_that_they_hold(tmp_path: Path) -> None:
    splits = mmsa_splits()
    expected = read_mmsa(write(tmp_path / "file.pkl", splits))
    for split in splits.values():
        split["audio_lengths"] = np.array(split["audio_lengths"], np.uint8)
        split["vision_lengths"] = np.array(split["vision_lengths"], np.float64)
        split["text_bert"] = split["text_bert"].astype(np.uint16)
    data = read_mmsa(write(tmp_path / "file.pkl", splits))
    for modality in ("audio", "vision"):
        assert data.train.features[modality].lengths.tolist() == expected.train.features[modality].lengths.tolist()
    np.testing.assert_array_equal(data.train.text_bert, expected.train.text_bert)  # type: ignore[arg-type]


def test_arrays_of_different_lengths_are_described(tmp_path: Path) -> None:
    splits = mmsa_splits()
    rows = np.empty(6, object)
    rows[:] = [np.zeros((length, 5), np.float32) for length in (3, 4, 2, 5, 6, 1)]
    for value in (rows, list(rows)):
        splits["train"]["audio"] = value
        message = r"train.audio must be .*, got 6 arrays, of shapes \(3, 5\), \(4, 5\) ...; pad them to one length"
        with pytest.raises(MMSAFileError, match=message):
            read_mmsa(write(tmp_path / "file.pkl", splits))


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("vision", "video"),
        ("vision", "visual"),
        ("vision", b"Vision"),
        ("audio", "acoustic"),
        ("audio", "COVAREP"),
        ("text", "language"),
        ("text", "glove"),
        ("vision_lengths", "visual_lengths"),
        ("audio_lengths", "acoustic_length"),
        ("raw_text", "transcripts"),
        ("raw_text", "words"),
    ],
)
def test_a_field_under_another_name_is_refused_with_its_right_name(tmp_path: Path, field: str, other: Any) -> None:
    splits: Any = mmsa_splits()
    for split in splits.values():
        split[other] = split.pop(field)
    with pytest.raises(MMSAFileError, match=f"train has the field .*, which is not read: rename it '{field}'"):
        read_mmsa(write(tmp_path / "file.pkl", splits))


def test_features_under_an_unknown_name_are_refused_while_a_modality_is_absent(tmp_path: Path) -> None:
    splits = mmsa_splits()
    for split in splits.values():
        split["extra"] = split.pop("vision")
    message = (
        r"train has the field 'extra', an array \(6, 9, 4\) of float32, .*: rename it 'vision' if it is a modality"
    )
    with pytest.raises(MMSAFileError, match=message):
        read_mmsa(write(tmp_path / "file.pkl", splits))


def test_other_fields_are_reported_as_not_read(tmp_path: Path) -> None:
    splits = mmsa_splits()
    for split in splits.values():
        split["video"] = split["vision"] + 1
        split["regression_labels_T"] = split["regression_labels"]
        split["empty"] = None
        split["words"] = np.array(None, dtype=object)  # of no dimension, so that it has no length
    data = read_mmsa(write(tmp_path / "file.pkl", {**splits, "config": {"a": 1}}))
    fields = [f"{split}.{field}" for split in splits for field in ("video", "regression_labels_T", "words")]
    assert data.ignored == ("config", *fields)


def test_text_of_python_2_is_decoded_as_utf_8(tmp_path: Path) -> None:
    """Python 2 wrote text as bytes; the letters \u00c3 and \u00a9 in place of \u00e9 would be other words."""
    splits = mmsa_splits(count=1)
    splits["train"]["raw_text"] = ["TRANSCRIPT"]
    content = pickle.dumps(splits, protocol=2)
    path = tmp_path / "file.pkl"
    unicode = b"X\x0a\x00\x00\x00TRANSCRIPT"
    for text, expected in (("caf\u00e9".encode(), "caf\u00e9"), (b"caf\xe9", None)):
        head, tail = content.split(unicode)
        path.write_bytes(head + b"U" + bytes([len(text)]) + text + tail)
        if expected is None:
            with pytest.raises(MMSAFileError, match=r"train.raw_text must be encoded as UTF-8, got 'caf\u00e9' for id"):
                read_mmsa(path)
        else:
            assert read_mmsa(path).train.raw_text == (expected,)
