"""Of several streams in a file those are read that a player chooses."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from multifuse.media.decoding import MediaError, read_audio, read_frames


def record_with_cover(path: Path, codec: str) -> Path:
    cover = path.with_suffix(".png")
    Image.new("RGB", (32, 32), (90, 90, 90)).save(cover)
    with av.open(str(path), "w") as container, av.open(str(cover)) as picture:
        sound: Any = container.add_stream(codec, rate=8000, layout="mono")
        video: Any = container.add_stream_from_template(picture.streams.video[0])
        video.disposition = Disposition.attached_pic
        for packet in picture.demux():
            if packet.dts is not None:
                packet.stream = video
                container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.full((1, 8000), 0.5, np.float32), format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        resampler = av.AudioResampler(sound.format, "mono", 8000, sound.frame_size or None)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".flac", "flac")])
def test_the_cover_of_a_record_is_no_film(tmp_path: Path, suffix: str, codec: str) -> None:
    path = record_with_cover(tmp_path / f"a{suffix}", codec)
    with pytest.raises(MediaError, match="has no video"):
        read_frames(path, 3, 16, 3.0)
    assert np.median(read_audio(path, 8000, 3.0)) == pytest.approx(0.5, abs=0.02)
