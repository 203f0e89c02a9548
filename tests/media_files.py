"""Media files of every kind, intact and damaged, encoded by the tests."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multifuse.recipes.data.media.planted_media import SOUND_RATE, write_sound, write_video


def brightening(count: int, side: int = 32) -> NDArray[np.uint8]:
    """Returns frames whose brightness encodes their number: frame i has the value 8 i."""
    levels = np.arange(count, dtype=np.uint8) * 8
    return np.broadcast_to(levels[:, None, None, None], (count, side, side, 3)).copy()


def tone(seconds: float, pitch: float = 440.0, rate: int = SOUND_RATE) -> NDArray[np.float32]:
    return np.asarray(0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate), np.float32)


def video(path: Path, count: int = 20, codec: str = "libx264", sound: bool = False, rate: int = 10) -> Path:
    write_video(path, brightening(count), tone(count / rate) if sound else None, codec=codec, rate=rate)
    return path


def wav(path: Path, seconds: float = 1.0, pitch: float = 440.0) -> Path:
    write_sound(path, tone(seconds, pitch))
    return path


def variable_rate(path: Path, times: list[float]) -> Path:
    """Writes a video whose frame i is shown from ``times[i]`` on."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=50)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for image, time in zip(brightening(len(times)), times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def without_frames(path: Path) -> Path:
    """Writes a container whose video stream has no frames."""
    with av.open(str(path), "w", format="matroska") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return path


def truncated(path: Path, fraction: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def av_digits(folder: Path, clips: int = 40) -> Path:
    """Writes spoken and written digits as distributed: tones and grey squares, of one speaker in all three splits."""
    rows = ["id,label,speaker,split"]
    (folder / "image").mkdir(parents=True)
    for number in range(clips):
        split = "train" if number < 0.7 * clips else "valid" if number < 0.85 * clips else "test"
        digit = number % 10
        rows.append(f"{digit}_anna_{number},{digit},anna,{split}")
        wav(folder / f"audio/{digit}_anna_{number}.wav", 0.4, pitch=200 + 100 * digit)
        Image.new("L", (28, 28), 20 * digit).save(folder / f"image/{digit}_anna_{number}.png")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def kinetics_sounds(folder: Path, clips: int, train: int) -> Path:
    """Writes Kinetics-Sounds with two classes, as published; the first ``train`` clips are in the training list."""
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(clips):
        stem, split = f"video{number:02d}_{number:06d}_{number + 2:06d}", "train" if number < train else "test"
        video(folder / "media" / f"{stem}.mp4", 10, sound=True)
        rows[split].append(f"{stem},2,{number % 2}")
    (folder / "splits").mkdir()
    for split, lines in rows.items():
        (folder / "splits" / f"my_{split}.txt").write_text("\n".join(lines))
    return folder
