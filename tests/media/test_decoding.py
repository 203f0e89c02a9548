"""Decoding: sounds and frames from every kind of file, including damaged ones, in bounded memory."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multifuse.media import decoding
from multifuse.media.decoding import MediaError, NoSoundError, read_audio, read_frames
from multifuse.recipes.data.media.media_index import MediaIndex
from tests import media_files
from tests.paths import REAL_DATA

REAL = REAL_DATA / "media"


def numbers(path: Path, count: int, seconds: float = 10.0) -> list[int]:
    """Returns the numbers of the brightening frames that were chosen."""
    return [round(float(image.mean()) / 8) for image in read_frames(path, count, 16, seconds).images]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg1video"), ("a.mkv", "mpeg4")]
)
def test_the_middle_frames_of_equal_parts_are_chosen(tmp_path: Path, name: str, codec: str) -> None:
    rate = 25 if codec == "mpeg1video" else 10
    path = media_files.video(tmp_path / name, 20, codec, rate=rate)
    assert numbers(path, 4) == [2, 7, 12, 17]
    assert numbers(path, 2, seconds=10 / rate) == [2, 7]
    frames = read_frames(path, 4, 16, 10.0, successors=True)
    assert [round(float(image.mean()) / 8) for image in frames.successors] == [3, 8, 13, 18]
    assert frames.images[0].shape == (16, 16, 3)
    assert frames.images[0].dtype == np.uint8


def test_frames_of_a_variable_rate_are_chosen_by_time_not_by_number(tmp_path: Path) -> None:
    # Frame 0 for 3 s, then five frames within 0.5 s, then frame 6 for the rest.
    path = media_files.variable_rate(tmp_path / "a.mkv", [0, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 4.0])
    assert numbers(path, 4, seconds=4.0) == [0, 6], "a frame that is shown for long must be chosen only once"


def test_a_single_frame_is_returned_once(tmp_path: Path) -> None:
    path = media_files.video(tmp_path / "a.mp4", 1)
    assert numbers(path, 5) == [0]
    assert read_frames(path, 5, 16, 10.0, successors=True).images == []
    Image.new("L", (28, 20), 80).save(tmp_path / "a.png")
    (still,) = read_frames(tmp_path / "a.png", 3, 16, 10.0).images
    np.testing.assert_allclose(still, 80, atol=1)


def test_a_file_without_frames_or_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"has no frames|cannot be decoded"):
        read_frames(media_files.without_frames(tmp_path / "a.mkv"), 4, 16, 10.0)
    with pytest.raises(MediaError, match="has no video"):
        read_frames(media_files.wav(tmp_path / "a.wav"), 4, 16, 10.0)


def test_sound_is_resampled_to_one_channel_and_cut(tmp_path: Path) -> None:
    path = media_files.wav(tmp_path / "a.wav", seconds=2.0, pitch=500.0)
    samples = read_audio(path, 16000, 1.5)
    assert samples.shape == (24000,)
    assert samples.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * 16000 / len(samples) == pytest.approx(500, abs=1)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.02)


def test_the_sound_of_a_video_is_read(tmp_path: Path) -> None:
    path = media_files.video(tmp_path / "a.mp4", 20, sound=True)
    assert len(read_audio(path, 8000, 10.0)) == pytest.approx(16000, abs=1100)  # AAC pads its first and last frame
    assert numbers(path, 4) == [2, 7, 12, 17]


def test_a_video_without_sound_is_distinguished_from_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(NoSoundError, match="has no sound"):
        read_audio(media_files.video(tmp_path / "a.mp4"), 8000, 10.0)
    (tmp_path / "b.mp4").write_bytes(b"no media at all")
    with pytest.raises(MediaError, match="cannot be decoded") as caught:
        read_audio(tmp_path / "b.mp4", 8000, 10.0)
    assert not isinstance(caught.value, NoSoundError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3])
def test_a_truncated_file_is_refused_with_a_one_line_error(
    tmp_path: Path, name: str, codec: str, fraction: float
) -> None:
    path = media_files.truncated(media_files.video(tmp_path / name, 30, codec), fraction)
    with pytest.raises(MediaError) as caught:
        read_frames(path, 4, 16, 10.0)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_that_declares_no_duration_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    video = media_files.truncated(media_files.video(tmp_path / "a.mpg", 50, "mpeg1video", rate=25), 0.5)
    chosen = numbers(video, 3)
    assert chosen == sorted(set(chosen))
    assert 0 < chosen[-1] < 45
    sound = media_files.truncated(media_files.wav(tmp_path / "a.wav", 2.0), 0.5)
    assert len(read_audio(sound, 8000, 10.0)) == pytest.approx(8000, abs=50)
    for path in (video, sound):
        media_files.truncated(path, 0.0)
        with pytest.raises(MediaError, match="cannot be decoded"):
            read_audio(path, 8000, 10.0)


def test_a_damaged_packet_costs_only_its_own_frames(tmp_path: Path) -> None:
    path = media_files.video(tmp_path / "a.avi", 30, "mpeg4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(bytes(content))
    assert len(numbers(path, 4)) >= 3


def test_a_frame_that_declares_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media_files.video(tmp_path / "a.avi", 4, "mpeg4")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    with pytest.raises(MediaError, match="declares frames of 32 x 32, more than 1000 pixels"):
        read_frames(path, 4, 16, 10.0)


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile 'other.avi'\n", "#EXTM3U\n#EXTINF:1,\nother.avi\n"])
def test_a_playlist_in_disguise_opens_no_other_file(tmp_path: Path, text: str) -> None:
    media_files.video(tmp_path / "other.avi", 4, "mpeg4")
    (tmp_path / "a.mp4").write_text(text)
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_frames(tmp_path / "a.mp4", 2, 16, 10.0)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_a_sound_that_declares_an_absurd_rate_is_refused(tmp_path: Path, rate: int) -> None:
    path = media_files.wav(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    offset = content.index(b"fmt ") + 12
    content[offset : offset + 4] = rate.to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(MediaError, match=f"declares {rate} samples per second"):
        read_audio(path, 22050, 3.0)


def test_a_sound_that_declares_four_gigabytes_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = media_files.wav(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    for offset in (4, content.index(b"data") + 4):
        content[offset : offset + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    assert len(read_audio(path, 8000, 10.0)) == pytest.approx(8000, abs=50)


def test_a_picture_of_60000_by_60000_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (64, 64)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(bytes(content))
    with pytest.raises(MediaError, match=r"declares frames of 60000 x 60000|no frame that can be decoded"):
        read_frames(path, 1, 16, 10.0)


def test_only_regular_files_of_a_folder_are_media(tmp_path: Path) -> None:
    """A pipe would block forever, and a link may lead nowhere."""
    media_files.wav(tmp_path / "whole.wav")
    (tmp_path / "linked.wav").symlink_to(tmp_path / "whole.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "device.wav").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.wav")
    assert MediaIndex(tmp_path).stems == {"whole", "linked"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not available")
@pytest.mark.parametrize(
    ("name", "seconds", "frames"),
    [
        ("v_Basketball_g01_c01.avi", None, 5),
        ("abseiling_k400.mp4", 9.98, 5),
        ("bbaf2n.mpg", 2.98, 5),
        ("swiz3n.mpg", 2.98, 5),
        ("Oz06ZWiO20M_6.mp4", 7.44, 5),
        ("03bSnISJMiM_1.wav", 3.33, None),
        ("av1_video.mkv", None, 5),
        ("h265_video.mp4", None, 5),
        ("test.avi", 6.56, 5),
        ("sine_mono_s32_8000.wav", 4.0, None),
    ],
)
def test_real_clips_are_decoded(name: str, seconds: float | None, frames: int | None) -> None:
    path = REAL / name
    if seconds is None:
        with pytest.raises(NoSoundError):
            read_audio(path, 22050, 10.0)
    else:
        assert len(read_audio(path, 22050, 10.0)) / 22050 == pytest.approx(seconds, abs=0.02)
    if frames is None:
        with pytest.raises(MediaError, match="has no video"):
            read_frames(path, 5, 32, 10.0)
    else:
        images = read_frames(path, 5, 32, 10.0).images
        assert len(images) == frames
        assert all(image.std() > 5 for image in images), "a picture is flat"
