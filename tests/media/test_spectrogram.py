"""Log spectrograms: the published sizes, a tone worked by hand, tiling, and mel bands."""

import numpy as np
import pytest

from multifuse.media.spectrogram import SpectrogramOptions, log_spectrogram
from tests.media_files import tone


def test_three_seconds_have_the_published_size() -> None:
    options = SpectrogramOptions()
    assert options.shape == (257, 188)
    assert log_spectrogram(tone(1.7, rate=22050), options).shape == (257, 188)


def test_a_tone_has_the_magnitude_of_its_window_in_its_bin() -> None:
    options = SpectrogramOptions(rate=8000, seconds=1.0, n_fft=256, hop=100)
    values = log_spectrogram(tone(1.0, pitch=8000 / 256 * 20), options)
    middle = values[:, 40]
    assert middle.argmax() == 20
    # Half the amplitude (0.5) times the sum of the Hann window (128).
    assert np.exp(middle[20]) == pytest.approx(32, rel=1e-3)
    assert log_spectrogram(np.zeros(10, np.float32), options).max() == pytest.approx(np.log(1e-7))


def test_short_sounds_are_tiled_or_followed_by_silence() -> None:
    sound = np.arange(1, 6, dtype=np.float32)
    tiled = SpectrogramOptions(rate=4, seconds=3.0)
    np.testing.assert_array_equal(tiled.fitted(sound), [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2])
    silent = SpectrogramOptions(rate=4, seconds=2.0, fill="zeros")
    np.testing.assert_array_equal(silent.fitted(sound), [1, 2, 3, 4, 5, 0, 0, 0])
    np.testing.assert_array_equal(SpectrogramOptions(rate=4, seconds=1.0).fitted(sound), [1, 2, 3, 4])


def test_mel_bands_follow_the_pitch() -> None:
    options = SpectrogramOptions(rate=8000, seconds=1.0, n_fft=256, hop=80, mels=40)
    peaks = [log_spectrogram(tone(1.0, pitch), options)[:, 50].argmax() for pitch in (300, 700, 1500, 3000)]
    assert peaks == sorted(set(peaks))
    assert options.shape == (40, 101)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": 0}, "rate must be an integer >= 1, got 0"),
        ({"seconds": float("nan")}, "seconds must be finite and > 0, got nan"),
        ({"fill": "noise"}, "fill must be 'tile' or 'zeros', got 'noise'"),
        ({"mels": -1}, "mels must be an integer >= 0, got -1"),
    ],
)
def test_bad_options_are_named(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectrogramOptions(**changed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        log_spectrogram(np.zeros(0, np.float32), SpectrogramOptions())
