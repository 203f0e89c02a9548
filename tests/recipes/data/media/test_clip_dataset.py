"""Prepared clips as samples and batches, and the limits of augmentation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from multifuse.processing import MultimodalCollator, Sample
from multifuse.recipes.data.media import shards
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.augmentation import ImageAugmentation, SpectrogramAugmentation
from multifuse.recipes.data.media.clip_dataset import (
    Augmentation,
    ClipDataset,
    spectrogram_statistics,
)
from multifuse.recipes.data.media.clip_rows import _encoded
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.data.media.shard_log import ShardLog
from tests import media_files

STRONG = SpectrogramAugmentation(
    time_shift=0.3,
    frequency_shift=0.2,
    frequency_warp=0.3,
    stretch=0.3,
    masks=2,
    mask_share=0.3,
    gain=1.0,
    noise=0.5,
)
IMAGE = ImageAugmentation(0.5, 0.1, 20, 0.2, True, 0.3, 0.2, 0.3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepares AVE with clips of three frames and, in training, one of a single frame."""
    folder = tmp_path_factory.mktemp("ave")
    (folder / "splits").mkdir()
    for split, ids in (("train", "abc"), ("val", "d"), ("test", "e")):
        (folder / f"splits/{split}Set.txt").write_text("".join(f"Bark&{clip}&good&1&3\n" for clip in ids))
        for clip in ids:
            media_files.video(folder / f"media/{clip}.mp4", 1 if clip == "b" else 10, sound=True)
    options = replace(planted_options("ave"), frames=3, frame_size=16, flow="dis")
    media, splits = folder / "media", folder / "splits"
    prepare(Preparation(AUDIOVISUAL_SETS["ave"], media, splits, folder / "out", options, quiet=True))
    return folder / "out"


def test_samples_contain_the_requested_inputs_and_labels(prepared: Path) -> None:
    rows = shards.read_split(prepared, "train")
    clip = ClipDataset(rows, ("audio", "vision", "flow"), "segments")[0]
    assert {name: tuple(values.shape) for name, values in clip.inputs.items()} == {
        "audio": (1, 129, 251),
        "vision": (3, 3, 16, 16),
        "flow": (3, 2, 16, 16),
    }
    assert clip.label == [1, 0, 0] + [1] * 7
    assert clip.inputs["vision"].dtype == torch.uint8
    assert ClipDataset(rows, ("vision",))[0].label == 0
    with pytest.raises(ValueError, match=r"the prepared set has no columns \['nothing'\]"):
        ClipDataset(rows, ("vision",), "nothing")  # type: ignore[arg-type]


def test_batches_are_padded_to_their_longest_clip_and_masked(prepared: Path) -> None:
    clips = ClipDataset(shards.read_split(prepared, "train"), ("audio", "vision", "flow"))
    one_frame = {**clips[1].inputs, "vision": clips[1].inputs["vision"][:1], "flow": torch.zeros(0, 2, 1, 1).byte()}
    batch = MultimodalCollator()([clips[0], Sample(one_frame, clips[1].label), clips[2]])
    assert batch["inputs"]["vision"].shape == (3, 3, 3, 16, 16)
    assert batch["mask"]["vision"].tolist() == [[True] * 3, [True, False, False], [True] * 3]
    assert batch["mask"]["flow"].tolist() == [[True] * 3, [False] * 3, [True] * 3], "a single frame has no flow"
    assert not batch["inputs"]["vision"][1, 1:].any()
    assert batch["mask"]["audio"].tolist() == [[True]] * 3
    assert batch["labels"].tolist() == [0, 0, 0]


def test_a_batch_without_motion_has_absent_flow() -> None:
    sample = Sample({"flow": torch.zeros(0, 2, 1, 1, dtype=torch.uint8)}, 1)
    batch = MultimodalCollator()([sample, sample])
    assert not batch["mask"]["flow"].any()
    assert batch["inputs"]["flow"].shape[:2] == (2, 1)


def test_statistics_are_those_of_the_training_spectrograms(prepared: Path) -> None:
    rows = shards.read_split(prepared, "train")
    values = np.concatenate([np.asarray(row["spectrogram"]).ravel() for row in rows.with_format("numpy")])
    assert spectrogram_statistics(rows) == pytest.approx((values.mean(), values.std()), rel=1e-4)


def test_augmentation_repeats_with_the_seed_and_is_off_by_default(prepared: Path) -> None:
    rows = shards.read_split(prepared, "train")
    augmented = ClipDataset(rows, ("audio", "vision"), augmentation=Augmentation(STRONG, IMAGE))

    def drawn(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return list(augmented[0].inputs.values())

    assert all(torch.equal(one, other) for one, other in zip(drawn(1), drawn(1), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(drawn(1), drawn(2), strict=True))
    plain = ClipDataset(rows, ("audio", "vision"))
    assert all(torch.equal(one, other) for one, other in zip(plain[0].inputs.values(), plain[0].inputs.values()))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (1, 64, 101)])
def test_spectrograms_keep_their_shape_and_stay_finite(shape: tuple[int, ...]) -> None:
    spectrogram = torch.randn(shape)
    for _ in range(50):
        changed = STRONG(spectrogram)
        assert changed.shape == shape
        assert changed.isfinite().all()
    assert torch.equal(SpectrogramAugmentation()(spectrogram), spectrogram)


def test_a_warp_moves_high_frequencies_further_than_low_ones() -> None:
    values = torch.zeros(1, 100, 3)
    values[:, 20], values[:, 60] = 1.0, 2.0
    peaks = set()
    for _ in range(30):
        warped = SpectrogramAugmentation(frequency_warp=0.2)(values)
        low, high = int(warped[0, :35, 0].argmax()), 35 + int(warped[0, 35:, 0].argmax())
        assert high / low == pytest.approx(3, rel=0.08)
        assert abs(low - 20) <= 0.25 * 20 + 1
        peaks.add(high)
    assert len(peaks) > 5


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 2, 7, 9), (4, 3, 32, 32)])
def test_frames_keep_their_shape_and_type(shape: tuple[int, ...]) -> None:
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    for _ in range(50):
        changed = IMAGE(frames)
        assert changed.shape == shape
        assert changed.dtype == torch.uint8
    assert torch.equal(ImageAugmentation()(frames), frames)


def test_flipping_a_flow_negates_its_horizontal_channel() -> None:
    flow = torch.full((1, 2, 4, 4), 128, dtype=torch.uint8)
    flow[:, 0] = 200
    seen = {int(ImageAugmentation(flip=True)(flow)[0, 0, 0, 0]) for _ in range(40)}
    assert seen == {200, 55}


def test_pair_anew_gives_a_sound_only_pictures_of_its_class(tmp_path: Path) -> None:
    schema = shards.features(["a", "b"], (), ("frames", "spectrogram"), 2)
    rows = []
    for number in range(6):
        picture = _encoded(np.full((4, 4, 3), 40 * number, np.uint8), "png")
        sound = np.full((3, 2), number, np.float16)
        rows.append({"id": str(number), "label": number % 2, "frames": [picture], "spectrogram": sound})
    shards.write_shard(shards.shard_path(tmp_path, "train", 0, 1), rows, ShardLog(), schema)
    shards.describe(tmp_path, ["train"], schema, "test")
    clips = ClipDataset(
        shards.read_split(tmp_path, "train"), ("audio", "vision"), augmentation=Augmentation(pair_anew=True)
    )
    seen = set()
    for _ in range(40):
        inputs = clips[2].inputs
        assert inputs["audio"].unique().tolist() == [2]
        seen.add(int(inputs["vision"][0, 0, 0, 0]) // 40)
    assert seen == {0, 2, 4}
