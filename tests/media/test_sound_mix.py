"""Sound as one channel: the mean of all, unclipped, also where layout, format or rate change within the stream."""

from pathlib import Path

import numpy as np
import pytest

from multifuse.media.decoding import read_audio
from multifuse.media.sound_track import SoundTrack
from tests import media_files, people_files


def constant(levels: list[float], seconds: float = 1.0, rate: int = 8000) -> people_files.Samples:
    return np.repeat(np.array(levels, np.float32)[:, None], round(seconds * rate), axis=1)


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_s16le", "pcm_s32le", "pcm_u8", "flac"])
@pytest.mark.parametrize(
    ("levels", "mean"),
    [([0.75, 0.75], 0.75), ([0.5, -0.5], 0.0), ([0.5, 0.0], 0.25), ([0.75, 0, 0, 0, 0, 0], 0.125), ([0.5], 0.5)],
)
def test_the_channels_are_averaged(tmp_path: Path, codec: str, levels: list[float], mean: float) -> None:
    """FFmpeg's own mix of 0.75 and 0.75 would be 1.06, clipped to 1."""
    suffix = ".flac" if codec == "flac" else ".wav"
    path = people_files.sound_file(tmp_path / f"a{suffix}", constant(levels), codec=codec)
    samples = read_audio(path, 8000, 3.0)
    assert samples.shape == (8000,)
    np.testing.assert_allclose(samples, mean, atol=1e-4)


def test_loud_stereo_in_phase_is_not_distorted_by_resampling(tmp_path: Path) -> None:
    tone = 1.9 * media_files.tone(1.0, 500.0, rate=44100)
    path = people_files.sound_file(tmp_path / "a.wav", np.stack([tone, tone]), rate=44100)
    samples = read_audio(path, 22050, 3.0)[1000:-1000]
    expected = 1.9 * media_files.tone(1.0, 500.0, rate=22050)[1000:-1000]
    np.testing.assert_allclose(samples, expected, atol=2e-3)


def test_amplitudes_above_full_scale_are_kept(tmp_path: Path) -> None:
    path = people_files.sound_file(tmp_path / "a.wav", constant([1.5, 1.25]))
    np.testing.assert_array_equal(read_audio(path, 8000, 3.0), 1.375)


def test_a_value_that_is_not_finite_costs_itself_alone(tmp_path: Path) -> None:
    channels = constant([0.5, 0.5], rate=16000)
    channels[0, 8000] = np.nan
    channels[1, 8000] = np.inf
    path = people_files.sound_file(tmp_path / "a.wav", channels, rate=16000)
    samples = read_audio(path, 8000, 3.0)
    assert np.isfinite(samples).all()
    np.testing.assert_allclose(np.delete(samples, np.arange(3900, 4100))[100:-100], 0.5, atol=1e-3)


@pytest.mark.parametrize(
    ("second", "rate"), [([0.25], 32000), ([0.25, 0.25], 48000), ([0.25], 22050)], ids=["mono", "rate", "both"]
)
def test_a_layout_or_rate_that_changes_within_a_stream_loses_nothing(
    tmp_path: Path, second: list[float], rate: int
) -> None:
    """A broadcast: the film in stereo, then the news in mono."""
    parts = [(constant([0.5, 0.5], 2.0, 32000), 32000), (constant(second, 2.0, rate), rate)]
    samples = read_audio(people_files.changing(tmp_path / "a.ts", parts), 16000, 10.0)
    assert len(samples) == pytest.approx(64000, abs=1500)
    np.testing.assert_allclose(samples[2000:30000], 0.5, atol=0.02)
    np.testing.assert_allclose(samples[35000:62000], 0.25, atol=0.02)


def test_pieces_of_any_format_and_rate_follow_each_other_exactly() -> None:
    track = SoundTrack(8000, 10.0)
    for level, rate in ((0.5, 8000), (0.25, 16000), (0.125, 8000)):
        track.add(people_files.audio_frame(constant([level, level], 1.0, rate), rate), None)
    samples = track.finish()
    assert len(samples) == 24000
    for second, level in enumerate((0.5, 0.25, 0.125)):
        np.testing.assert_allclose(samples[second * 8000 + 200 : second * 8000 + 7800], level, atol=1e-3)
