"""Media as people have them: cut without encoding, turned, with late sound, stereo, and with layouts that change."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def sound_file(path: Path, channels: Samples, rate: int = 8000, codec: str = "pcm_f32le") -> Path:
    """Encodes (channels, samples)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=_layout(channels))
        container.mux(_packets(stream, channels, rate, 0.0))
    return path


def film(
    path: Path,
    images: NDArray[np.uint8],
    channels: Samples | None = None,
    video_start: float = 0.0,
    sound_start: float = 0.0,
    gap: tuple[float, float] | None = None,
    rate: int = 10,
) -> Path:
    """Encodes frames at ``rate`` and sound, each from its start on; from ``gap[0]`` to ``gap[1]`` there is no sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=rate)
        video.width, video.height, video.pix_fmt, video.bit_rate = images.shape[2], images.shape[1], "yuv420p", 800_000
        sound: Any = None
        if channels is not None:
            codec = "mp2" if path.suffix == ".ts" else "pcm_s16le"
            sound = container.add_stream(codec, rate=SOUND_RATES[path.suffix], layout=_layout(channels))
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number + round(video_start * rate), Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if channels is not None:
            container.mux(_packets(sound, channels, SOUND_RATES[path.suffix], sound_start, gap))
    return path


SOUND_RATES = {".mkv": 8000, ".mov": 8000, ".ts": 32000}


def copied_from(source: Path, path: Path, seconds: float, **options: str) -> Path:
    """Cuts the start off without encoding, as `ffmpeg -ss SECONDS -c copy` does: what precedes is kept, not shown."""
    with av.open(str(source)) as reader, av.open(str(path), "w", options=options) as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is None or packet.pts is None:
                continue
            offset = round(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            if packet.stream.type == "audio" and packet.pts < 0:
                continue
            packet.stream = streams[packet.stream.index]
            writer.mux(packet)
    return path


def starting_at(path: Path, seconds: float) -> Path:
    """Writes the start of what is shown into the edit list of an mp4 whose only stream is video."""
    with av.open(str(path)) as container:
        units = round(seconds / (container.streams.video[0].time_base or 1))
    content = bytearray(path.read_bytes())
    struct.pack_into(">i", content, content.index(b"elst") + 16, units)
    path.write_bytes(bytes(content))
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Writes a display matrix, of which (x, y) is shown at (a x + c y, b x + d y), into the track header of an mp4."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    content[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    return path


def changing(path: Path, parts: list[tuple[Samples, int]]) -> Path:
    """A transport stream whose only sound is encoded anew from part to part: (channels, samples) and the rate."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mp2", rate=parts[0][1], layout=_layout(parts[0][0]))
        start = 0.0
        for number, (channels, rate) in enumerate(parts):
            encoder: Any = stream if number == 0 else _encoder(channels, rate)
            for packet in _packets(encoder, channels, rate, start):
                packet.stream = stream
                container.mux(packet)
            start += channels.shape[1] / rate
    return path


def _encoder(channels: Samples, rate: int) -> Any:
    encoder: Any = av.CodecContext.create("mp2", "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, _layout(channels), "s16"
    encoder.time_base = Fraction(1, rate)
    return encoder


def _packets(
    encoder: Any,
    channels: Samples,
    rate: int,
    start: float,
    gap: tuple[float, float] | None = None,
) -> list[Any]:
    size = encoder.frame_size or 400
    packets = []
    for first in range(0, channels.shape[1], size):
        if gap is not None and gap[0] <= first / rate < gap[1]:
            continue
        piece = channels[:, first : first + size]
        values = np.ascontiguousarray(piece.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(values, format="flt", layout=_layout(channels))
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate) + first
        for converted in av.AudioResampler(encoder.format, encoder.layout, rate).resample(frame):
            converted.pts, converted.time_base = frame.pts, Fraction(1, rate)
            packets += encoder.encode(converted)
    return [*packets, *encoder.encode(None)]


def _layout(channels: Samples) -> str:
    return {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]


def audio_frame(channels: Samples, rate: int) -> av.AudioFrame:
    """A decoded piece of sound."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=_layout(channels))
    frame.sample_rate = rate
    return frame
