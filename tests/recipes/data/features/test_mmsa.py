"""The reader of MMSA feature files: layouts, lengths, non-finite values, standardisation, and bad files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multifuse.recipes.data.features.mmsa import MMSAFileError, read_mmsa, standardised
from tests.files import Splits, mmsa_splits, write
from tests.paths import REAL_DATA

REAL = REAL_DATA / "mosi"


def test_an_unaligned_file_is_read_with_its_lengths(tmp_path: Path) -> None:
    splits = mmsa_splits()
    data = read_mmsa(write(tmp_path / "file.pkl", splits))
    assert data.widths == {"text": 7, "vision": 4, "audio": 5}
    audio = data.train.features["audio"]
    assert audio.lengths.tolist() == splits["train"]["audio_lengths"]
    assert not audio.values[~audio.mask].any()
    assert audio.mask.sum(1).tolist() == audio.lengths.tolist()
    np.testing.assert_array_equal(audio.values[1][audio.mask[1]], splits["train"]["audio"][1][audio.mask[1]])
    assert data.train.ids[2] == "video2$_$2"
    assert data.train.raw_text is not None


def test_an_aligned_file_takes_its_lengths_from_the_text_mask(tmp_path: Path) -> None:
    splits = mmsa_splits(aligned=True)
    data = read_mmsa(write(tmp_path / "file.pkl", splits))
    for modality in ("audio", "vision", "text"):
        lengths = data.valid.features[modality].lengths
        assert lengths.tolist() == splits["valid"]["text_bert"][:, 1].sum(1).tolist()


def test_without_lengths_or_text_trailing_zeros_are_padding(tmp_path: Path) -> None:
    splits = mmsa_splits(aligned=True)
    for split in splits.values():
        del split["text_bert"], split["text"], split["raw_text"]
        split["vision"] = np.ones((6, 8, 4), np.float32)
        split["vision"][0, 5:] = 0
        split["vision"][1, 2] = 0
        split["vision"][2] = 0
    lengths = read_mmsa(write(tmp_path / "file.pkl", splits)).test.features["vision"].lengths
    assert lengths[:3].tolist() == [5, 8, 0]


@pytest.mark.parametrize("kept", [("audio",), ("text_bert",), ("raw_text", "vision")])
def test_any_subset_of_the_modalities_is_legal(tmp_path: Path, kept: tuple[str, ...]) -> None:
    splits = mmsa_splits()
    for split in splits.values():
        for field in {"text", "audio", "vision", "raw_text", "text_bert"} - set(kept):
            del split[field]
    assert set(read_mmsa(write(tmp_path / "file.pkl", splits)).widths) == set(kept) & {"audio", "vision"}


def test_one_vector_per_utterance_has_length_one_even_if_zero(tmp_path: Path) -> None:
    splits = mmsa_splits()
    for split in splits.values():
        split["audio"] = np.zeros((6, 1, 73), np.float32)
        del split["audio_lengths"]
    audio = read_mmsa(write(tmp_path / "file.pkl", splits)).train.features["audio"]
    assert audio.mask.all()


def test_non_finite_values_become_zero_and_are_counted(tmp_path: Path) -> None:
    splits = mmsa_splits()
    splits["test"]["vision"][3, 0, :2] = np.nan
    data = read_mmsa(write(tmp_path / "file.pkl", splits))
    assert data.replaced == {"text": 0, "vision": 2, "audio": 3}
    assert data.train.features["audio"].values[0, 0, 0] == 0


def test_features_are_standardised_on_the_training_split_only(tmp_path: Path) -> None:
    splits = mmsa_splits(count=40)
    real = np.arange(9) < np.array(splits["train"]["vision_lengths"])[:, None]
    splits["train"]["vision"][real, 1] = 7
    data = read_mmsa(write(tmp_path / "file.pkl", splits))
    ours = standardised(data)
    for name in ("audio", "vision"):
        train, mask = ours.train.features[name], data.train.features[name].mask
        tokens = train.values[mask]
        varying = [d for d in range(tokens.shape[1]) if (name, d) != ("vision", 1)]
        np.testing.assert_allclose(tokens.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(tokens.std(0)[varying], 1, atol=1e-3)
        assert not train.values[~mask].any()
        raw = data.train.features[name].values[mask].astype(np.float64)
        for split in ("valid", "test"):
            before, after = getattr(data, split).features[name], getattr(ours, split).features[name]
            expected = (before.values[before.mask] - raw.mean(0)) / np.where(raw.std(0) > 1e-6, raw.std(0), 1)
            np.testing.assert_allclose(after.values[after.mask], expected, atol=1e-3)


def changed(split: str, field: str, value: Any) -> Callable[[Splits], Any]:
    def change(splits: Splits) -> Splits:
        splits[split][field] = value
        return splits

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda splits: [1, 2], "must contain a dict of .* got a list"),
        (lambda splits: {"train": splits["train"]}, r"lacks \['valid', 'test'\]"),
        (changed("valid", "regression_labels", None), "valid.regression_labels is missing"),
        (changed("valid", "regression_labels", np.array([np.nan] * 6)), "valid.regression_labels must be finite"),
        (changed("valid", "regression_labels", np.zeros(0)), "valid.regression_labels is empty"),
        (
            changed("test", "audio", np.zeros((6, 5))),
            r"test.audio must have shape \(N, T, D\) with N = 6, got \(6, 5\)",
        ),
        (changed("test", "audio", np.zeros((5, 3, 5))), r"test.audio must have shape .* got \(5, 3, 5\)"),
        (changed("test", "audio", np.array([["a"]])), "test.audio must be an array of numbers"),
        (changed("test", "audio", np.zeros((6, 11, 9))), "test must have .* widths of train, .* got .*'audio': 9"),
        (
            changed("train", "audio_lengths", [1, 2, 99, 1, 1, 1]),
            r"train.audio_lengths must be in \[0, 11\], got 99",
        ),
        (changed("train", "audio_lengths", [1, 2]), r"train.audio_lengths must have shape \(N,\) with N = 6"),
        (changed("train", "text_bert", np.zeros((6, 2, 8))), r"train.text_bert must have shape \(N, 3, T\)"),
        (changed("train", "id", ["a"]), "train.id must be a list or array of 6 strings"),
    ],
)
def test_wrongly_shaped_files_are_refused_by_field(
    tmp_path: Path, change: Callable[[Splits], Any], message: str
) -> None:
    path = write(tmp_path / "file.pkl", change(mmsa_splits()))
    with pytest.raises(MMSAFileError, match=message) as caught:
        read_mmsa(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty or truncated"),
        (b"not a pickle\n", "cannot be read as a pickle"),
        (b"cos\nsystem\n.", "names os.system"),
    ],
)
def test_files_that_are_not_feature_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file.pkl").write_bytes(content)
    with pytest.raises(MMSAFileError, match=message):
        read_mmsa(tmp_path / "file.pkl")
    with pytest.raises(MMSAFileError, match="cannot be opened: No such file"):
        read_mmsa(tmp_path / "missing.pkl")
    with pytest.raises(MMSAFileError, match="cannot be opened: Is a directory"):
        read_mmsa(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real MOSI files are not available")
@pytest.mark.parametrize(
    ("name", "counts", "widths"),
    [
        ("mosi_standard_text_audio.pkl", (1284, 229, 686), {"audio": 73}),
        ("mosi_bclstm_text_audio_vision.pkl", (1245, 202, 752), {"audio": 73, "vision": 100}),
    ],
)
def test_the_real_mosi_files_are_read(name: str, counts: tuple[int, ...], widths: dict[str, int]) -> None:
    data = read_mmsa(REAL / name)
    assert tuple(len(split.labels) for split in (data.train, data.valid, data.test)) == counts
    assert data.widths == widths
