"""Of several copies of a clip the original is read, the next if that one cannot be, and the report says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multifuse.recipes.commands.prepare import main
from multifuse.recipes.data.media import shards
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.media_index import MediaIndex
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation import Preparation, Report, prepare
from multifuse.recipes.data.media.preparation_record import RECORD, REPORT, prepared_record
from multifuse.recipes.data.split_lists.clips import PreparationError
from tests import media_files, people_files

CLIPS = ("1001_IEO_NEU_XX", "1002_IEO_SAD_XX", "1003_IEO_ANG_XX")
NEU, SAD, ANG = CLIPS


def constant(level: float) -> people_files.Samples:
    return np.full((1, 32000), level, np.float32)


@pytest.fixture
def cremad(tmp_path: Path) -> Path:
    """CREMA-D as it is distributed: films, wav and, transcoded and fainter, mp3, whose folder sorts first."""
    lists = {"train": CLIPS[:2], "test": CLIPS[2:]}
    (tmp_path / "splits").mkdir()
    for split, ids in lists.items():
        (tmp_path / f"splits/{split}.csv").write_text("".join(f"{clip},{clip.split('_')[2]}\n" for clip in ids))
    for clip in CLIPS:
        media_files.video(tmp_path / f"media/VideoFlash/{clip}.flv", 20, "flv")
        people_files.sound_file(tmp_path / f"media/AudioWAV/{clip}.wav", constant(0.5), 16000, "pcm_s16le")
        people_files.sound_file(tmp_path / f"media/AudioMP3/{clip}.mp3", constant(0.25), 16000, "mp3")
    return tmp_path


def prepared(folder: Path, **changes: Any) -> Report:
    options = planted_options("cremad")
    media, splits = folder / "media", folder / "splits"
    fields: dict[str, Any] = {"quiet": True, "shard_size": 1, "count_unlisted": False, **changes}
    return prepare(Preparation(AUDIOVISUAL_SETS["cremad"], media, splits, folder / "out", options, **fields))


def loudness(folder: Path) -> dict[str, float]:
    """The constant level of every clip."""
    result = {}
    for split in ("train", "valid", "test"):
        for row in shards.read_split(folder / "out", split).with_format("numpy"):
            result[str(row["id"])] = float(np.median(np.exp(row["spectrogram"][:, 0].astype(float))) / 128)
    return result


def test_the_original_sound_comes_before_the_transcoded_one(cremad: Path) -> None:
    report = prepared(cremad)
    assert loudness(cremad) == pytest.approx(dict.fromkeys(CLIPS, 0.5), rel=0.02)
    assert report.notes == []
    written = json.loads((cremad / "out" / REPORT).read_text())
    assert written["sources"] == {"pictures": {"VideoFlash/*.flv": 3}, "sound": {"AudioWAV/*.wav": 3}}


def test_a_blank_copy_costs_nothing_where_the_original_is_whole(cremad: Path) -> None:
    (cremad / f"media/AudioMP3/{SAD}.mp3").write_bytes(b"")
    people_files.sound_file(cremad / f"media/AudioMP3/{NEU}.mp3", constant(0), 16000, "mp3")
    assert prepared(cremad).notes == []
    assert loudness(cremad) == pytest.approx(dict.fromkeys(CLIPS, 0.5), rel=0.02)


def test_where_the_original_cannot_be_used_the_next_is_and_the_report_says_why(cremad: Path) -> None:
    (cremad / f"media/AudioWAV/{NEU}.wav").write_bytes(b"")
    people_files.sound_file(cremad / f"media/AudioWAV/{SAD}.wav", constant(0), 16000, "pcm_s16le")
    media_files.video(cremad / f"media/VideoMP4/{ANG}.mp4", 20)
    media_files.truncated(cremad / f"media/VideoFlash/{ANG}.flv", 0.01)
    report = prepared(cremad)
    assert loudness(cremad) == pytest.approx({NEU: 0.25, SAD: 0.25, ANG: 0.5}, rel=0.1)
    notes = {note["id"]: note["note"] for note in report.notes}
    assert notes[NEU] == (
        f"AudioWAV/{NEU}.wav cannot be decoded: it is an empty file; download it again; AudioMP3/{NEU}.mp3 is used "
        "instead"
    )
    assert notes[SAD] == f"AudioWAV/{SAD}.wav is silent; AudioMP3/{SAD}.mp3 is used instead"
    assert notes[ANG].startswith(f"VideoFlash/{ANG}.flv ")
    assert notes[ANG].endswith(f"VideoMP4/{ANG}.mp4 is used instead")
    assert report.sources == {
        "pictures": {"VideoFlash/*.flv": 2, "VideoMP4/*.mp4": 1},
        "sound": {"AudioMP3/*.mp3": 2, "AudioWAV/*.wav": 1},
    }
    assert prepared(cremad) == report, "a finished set reports the same again"


def test_the_command_says_that_there_are_notes(cremad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cremad / f"media/AudioWAV/{NEU}.wav").write_bytes(b"")
    folders = ("--media", cremad / "media", "--splits", cremad / "splits", "--output", cremad / "out")
    small = ("--frame-size", 16, "--frames", 1, "--ignore-unlisted")
    assert main(["cremad", *map(str, [*folders, *small])]) == 0
    assert "skipped 0 of 3; notes on files: 1, see" in capsys.readouterr().out


def test_a_sound_that_is_silent_in_every_copy_is_kept_and_noted(cremad: Path) -> None:
    people_files.sound_file(cremad / f"media/AudioWAV/{SAD}.wav", constant(0), 16000, "pcm_s16le")
    (cremad / f"media/AudioMP3/{SAD}.mp3").unlink()
    (note,) = prepared(cremad).notes
    assert note["id"] == SAD
    assert note["note"].startswith(f"AudioWAV/{SAD}.wav is silent; VideoFlash/{SAD}.flv has no sound")
    assert loudness(cremad)[SAD] < 1e-3


def test_where_no_copy_can_be_decoded_the_reason_names_each(cremad: Path) -> None:
    for path in (cremad / "media").glob(f"Audio*/{SAD}.*"):
        path.write_bytes(b"")
    (entry,) = prepared(cremad, max_bad=0.4).skipped
    assert entry["id"] == SAD
    for copy in (f"AudioWAV/{SAD}.wav cannot", f"AudioMP3/{SAD}.mp3 cannot", f"VideoFlash/{SAD}.flv has no sound"):
        assert copy in entry["reason"]


def test_a_film_whose_own_sound_is_used_while_others_have_a_file_is_noted(cremad: Path) -> None:
    for path in (cremad / "media").glob(f"Audio*/{NEU}.*"):
        path.unlink()
    (entry,) = prepared(cremad, max_bad=0.4).skipped
    assert entry["reason"] == f"{NEU}.flv has no sound, and there is no sound file of its name"
    media_files.video(cremad / f"media/VideoFlash/{NEU}.mp4", 20, sound=True)
    (cremad / f"media/VideoFlash/{NEU}.flv").unlink()
    (cremad / "out").rename(cremad / "before")
    (note,) = prepared(cremad).notes
    assert note["note"] == f"has no sound file; the sound of {NEU}.mp4 is used"


def test_the_kind_that_is_missing_is_named(cremad: Path) -> None:
    for path in (cremad / "media/VideoFlash").iterdir():
        path.unlink()
    with pytest.raises(
        PreparationError,
        match=rf"3 of 3 clips .* the first is {NEU}: has sound {NEU}\.wav but no video file \(\.mp4, .*\.flv, ",
    ):
        prepared(cremad)
    assert [path.name for path in (cremad / "out").iterdir()] == [REPORT]


@pytest.mark.parametrize(
    ("name", "suffixes", "expected"),
    [
        ("cremad", (".mp4", ".flv"), ".flv"),
        ("ucf101", (".mp4", ".avi", ".mkv"), ".avi"),
        ("ks", (".avi", ".mkv", ".mp4"), ".mp4"),
        ("ave", (".flv", ".mp4"), ".mp4"),
        ("av_digits", (".jpg", ".png"), ".png"),
    ],
)
def test_each_benchmark_prefers_the_format_that_it_is_distributed_in(
    tmp_path: Path, name: str, suffixes: tuple[str, ...], expected: str
) -> None:
    for number, suffix in enumerate(suffixes):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/clip{suffix}").touch()
    data_set = AUDIOVISUAL_SETS[name]
    files = MediaIndex(tmp_path, data_set.stills, data_set.preferred).find(["clip"])
    assert files.pictures
    assert files.pictures[0].suffix == expected
    assert {path.suffix for path in files.pictures} == set(suffixes)


def test_lossless_sound_comes_before_lossy_whatever_the_folders_are_called(tmp_path: Path) -> None:
    for folder, suffix in (("a", ".mp3"), ("b", ".ogg"), ("c", ".flac"), ("d", ".WAV")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"clip{suffix}").touch()
    order = [path.suffix for path in MediaIndex(tmp_path).find(["clip"]).sounds]
    assert order == [".WAV", ".flac", ".ogg", ".mp3"]


def test_a_set_that_an_earlier_version_prepared_is_neither_read_nor_resumed(cremad: Path) -> None:
    prepared(cremad)
    path = cremad / "out" / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(PreparationError, match=r"has format 1, but this version .* prepare the set again"):
        prepared_record(cremad / "out")
    with pytest.raises(PreparationError, match="was started with format 1, now 2"):
        prepared(cremad)
