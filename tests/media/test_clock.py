"""One clock: what a player shows and plays at a time is what frames, sound and labels have at that time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multifuse.media.decoding import MediaError, NoSoundError, read_audio, read_frames
from multifuse.media.sound_track import SoundTrack
from multifuse.recipes.data.media import shards
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.augmentation import SpectrogramAugmentation
from multifuse.recipes.data.media.clip_dataset import Augmentation, ClipDataset
from multifuse.recipes.data.media.clip_rows import ClipRow, ClipTask, clip_row
from multifuse.recipes.data.media.media_index import ClipFiles
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.data.split_lists.clips import Clip, PreparationError
from tests import media_files, people_files
from tests.paths import REAL_DATA

CUT = REAL_DATA / "media/Oz06ZWiO20M_6.mp4"
LABELS = tuple(range(10))


def constant(seconds: float, level: float = 0.5, rate: int = 8000) -> people_files.Samples:
    return np.full((1, round(seconds * rate)), level, np.float32)


def numbers(path: Path, count: int, seconds: float = 10.0, absolute: bool = False) -> list[int]:
    """Which of the brightening frames were chosen."""
    images = read_frames(path, count, 16, seconds, absolute=absolute).images
    return [round(float(image.mean()) / 8) for image in images]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_of_a_clip_cut_by_stream_copy_what_a_player_shows_is_read(tmp_path: Path, codec: str) -> None:
    """The packets from the last key frame to the cut are in the file, and are decoded, but not shown."""
    source = media_files.video(tmp_path / "source.mp4", 30, codec, sound=True)
    cut = people_files.copied_from(source, tmp_path / "cut.mp4", 1.0)
    assert numbers(cut, 4) == [12, 17, 22, 27]
    assert numbers(cut, 20) == list(range(10, 30)), "as many frames as are shown"
    assert numbers(cut, 2, seconds=1.0) == [12, 17]
    assert len(read_audio(cut, 8000, 10.0)) == pytest.approx(16000, abs=1100)
    frames = read_frames(cut, 4, 16, 10.0, successors=True)
    assert [round(float(image.mean()) / 8) for image in frames.successors] == [13, 18, 23, 28]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_what_has_a_negative_time_is_not_shown(tmp_path: Path, codec: str) -> None:
    source = media_files.video(tmp_path / "source.mp4", 30, codec)
    cut = people_files.copied_from(source, tmp_path / "cut.mkv", 1.0, avoid_negative_ts="disabled")
    assert numbers(cut, 40) == list(range(10, 30))
    assert numbers(people_files.starting_at(source, 1.0), 40) == list(range(10, 30)), "by the edit list"


@pytest.mark.skipif(not CUT.exists(), reason="the real clips are not beside the project")
def test_a_real_film_cut_by_stream_copy_has_the_frames_of_the_uncut_one(tmp_path: Path) -> None:
    cut = people_files.copied_from(CUT, tmp_path / "cut.mp4", 3.0)
    shown = read_frames(cut, 4, 32, 4.0).images
    uncut = read_frames(CUT, 7, 32, 7.0).images[3:]
    assert len(shown) == 4
    for image, expected in zip(shown, uncut, strict=True):
        assert np.abs(image.astype(float) - expected).mean() < 3


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".ts"])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_a_sound_that_starts_later_than_the_picture_is_silent_until_then(
    tmp_path: Path, suffix: str, offset: float
) -> None:
    images = media_files.brightening(20)
    rate = people_files.SOUND_RATES[suffix]
    path = people_files.film(tmp_path / f"a{suffix}", images, constant(1.5, rate=rate), offset, offset + 0.5)
    samples = read_audio(path, 8000, 10.0)
    assert len(samples) == pytest.approx(16000, abs=600)
    np.testing.assert_allclose(samples[:3900], 0, atol=1e-6)
    np.testing.assert_allclose(samples[4800:15000], 0.5, atol=0.01)
    assert numbers(path, 4) == [2, 7, 12, 17]


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_a_picture_that_starts_later_than_the_sound_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    path = people_files.film(tmp_path / f"a{suffix}", media_files.brightening(20), constant(3.0), video_start=1.0)
    assert len(read_audio(path, 8000, 10.0)) == 24000
    assert numbers(path, 6, seconds=3.0) == [0, 2, 7, 12, 17], "until its start the first frame, once"
    assert numbers(path, 6, seconds=3.0, absolute=True) == [0, 0, 2, 7, 12, 17]
    with pytest.raises(MediaError, match=r"shows no frame in its first 0\.5 s: the video begins at 1\.00 s"):
        read_frames(path, 2, 16, 0.5)


def test_a_sound_that_starts_after_the_part_that_is_read_is_missing(tmp_path: Path) -> None:
    path = people_files.film(tmp_path / "a.mkv", media_files.brightening(30), constant(1.0), sound_start=2.0)
    with pytest.raises(NoSoundError, match=r"has no sound in its first 1 s: it begins at 2\.00 s"):
        read_audio(path, 8000, 1.0)


def test_a_gap_in_the_sound_is_silent_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    path = people_files.film(tmp_path / "a.mkv", media_files.brightening(20), constant(2.0), gap=(0.5, 1.0))
    samples = read_audio(path, 8000, 10.0)
    assert len(samples) == 16000
    np.testing.assert_allclose(samples[:4000], 0.5, atol=1e-3)
    np.testing.assert_array_equal(samples[4000:8000], 0)
    np.testing.assert_allclose(samples[8000:], 0.5, atol=1e-3)


def test_a_jump_of_the_time_stamps_by_hours_leaves_no_gap() -> None:
    track = SoundTrack(8000, 10.0)
    for time in (0.0, 9000.0, 9000.25):
        track.add(people_files.audio_frame(constant(0.25), 8000), time)
    np.testing.assert_array_equal(track.finish(), constant(0.75)[0])


def ave_row(path: Path, **changes: Any) -> ClipRow:
    options = replace(planted_options("ave"), frame_size=16, image_format="png", **changes)
    return clip_row(ClipTask(Clip("a", 0, "train", segments=LABELS), ClipFiles((path,), (path,)), options))


def test_a_clip_shorter_than_its_labels_keeps_every_second_beside_its_label(tmp_path: Path) -> None:
    """Six of ten seconds: the last frame stays, and the sound is silent, not repeated."""
    path = people_files.film(tmp_path / "a.mkv", media_files.brightening(12), constant(6.0), rate=2)
    assert numbers(path, 10, absolute=True) == [1, 3, 5, 7, 9, 11, 11, 11, 11, 11]
    result = ave_row(path, sound="waveform")
    row = result.row
    assert row is not None
    assert len(row["frames"]) == len(row["segments"]) == 10
    assert [picture == row["frames"][5] for picture in row["frames"]] == [False] * 5 + [True] * 5
    np.testing.assert_allclose(row["waveform"][:48000], 0.5 * 32767, atol=40)
    np.testing.assert_array_equal(row["waveform"][48000:], 0)
    assert result.notes == ("a.mkv ends at 6.00 s, before the last of its labels, which cover 10 s",) * 2


def test_a_frame_shown_for_seconds_counts_for_each_of_their_labels(tmp_path: Path) -> None:
    path = media_files.variable_rate(tmp_path / "a.mkv", [0, 3.0, 3.2, 3.4, 8.0, 9.98])
    assert numbers(path, 10, absolute=True) == [0, 0, 0, 3, 3, 3, 3, 3, 4, 4]
    frames = read_frames(path, 10, 16, 10.0, successors=True, absolute=True)
    assert [round(float(image.mean()) / 8) for image in frames.successors] == [1, 1, 1, 4, 4, 4, 4, 4, 5, 5]


def test_where_nothing_follows_there_is_no_motion(tmp_path: Path) -> None:
    path = people_files.film(tmp_path / "a.mkv", media_files.brightening(2), constant(1.0), rate=2)
    row = ave_row(path, flow="dis").row
    assert row is not None
    assert len(row["flow"]) == 10
    assert row["flow"][5] == row["flow"][9]


def test_augmentation_moves_no_sound_away_from_the_labels_of_its_seconds(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}Set.txt").write_text(f"Bark&{split}&good&0&4\n")
        tone = np.concatenate([media_files.tone(4.0), np.zeros(48000, np.float32)])[None]
        people_files.film(tmp_path / f"media/{split}.mkv", media_files.brightening(20), tone, rate=2)
    job = Preparation(
        AUDIOVISUAL_SETS["ave"], tmp_path / "media", tmp_path, tmp_path / "out", planted_options("ave"), quiet=True
    )
    prepare(job)
    rows = shards.read_split(tmp_path / "out", "train")
    moves = Augmentation(SpectrogramAugmentation(time_shift=0.5, stretch=0.5))
    torch.manual_seed(0)
    still = ClipDataset(rows, ("audio",))[0].inputs["audio"]
    segments = ClipDataset(rows, ("audio",), "segments", moves)
    assert all(torch.equal(segments[0].inputs["audio"], still) for _ in range(5))
    assert not torch.equal(ClipDataset(rows, ("audio",), "label", moves)[0].inputs["audio"], still)
    loud = still[0].amax(0)[:-1].reshape(10, -1).mean(1)
    assert (loud[:4].min() - loud[4:].max()).item() > 3, "the sound of a second is beside its label"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fill": "tile"}, r"--fill must be zeros for AVE, whose labels are for parts of 10 s, got 'tile'"),
        ({"seconds": 5.0}, r"--seconds must be 10 for AVE, whose labels are for parts of 10 s, got 5"),
        ({"frame_seconds": 3.0}, r"--frame-seconds must be 10 for AVE, whose labels are for parts of 10 s, got 3"),
    ],
)
def test_options_that_would_shift_labels_against_sound_or_frames_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}Set.txt").write_text(f"Bark&{split}&good&0&4\n")
    options = planted_options("ave")
    if "frame_seconds" in changes:
        options = replace(options, frame_seconds=3.0)
    else:
        options = replace(options, spectrogram=replace(options.spectrogram, **changes))
    with pytest.raises(PreparationError, match=message):
        prepare(Preparation(AUDIOVISUAL_SETS["ave"], tmp_path, tmp_path, tmp_path / "out", options, quiet=True))
    assert AUDIOVISUAL_SETS["ave"].options.spectrogram.fill == "zeros"
