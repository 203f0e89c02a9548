"""Small synthetic audio-visual sets: media files encoded by PyAV, and split lists in each benchmark's published format.

Each class is a combination of a sound (a low or a high tone) and a sight (the colour of a moving square), so neither
modality is enough to tell it. For UCF101, which has no sound, it is a combination of a colour and a direction of
motion. In AVE the event fills some of the ten seconds, and noise fills the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.preparation_options import PreparationOptions
from multifuse.recipes.data.split_lists.cremad import CLASSES as EMOTIONS
from multifuse.recipes.files import whole

SIDE, FRAME_RATE, SOUND_RATE = 64, 6, 8000
_COLOURS = ((220, 40, 40), (40, 200, 60), (60, 80, 230))
_TONES = (330.0, 880.0)


@dataclass(frozen=True)
class Scene:
    """The content of a synthetic clip."""

    colour: int
    tone: int | None
    """The index of the tone; ``None`` for no sound."""
    direction: int = 0
    """The direction of motion: 0 is to the right, 1 is down."""
    seconds: float = 2.0
    event: tuple[float, float] | None = None
    """The start and end of the event, in seconds, with only noise outside it; ``None`` for the whole clip."""


@dataclass(frozen=True)
class PlantedSet:
    """The folders of a synthetic set."""

    media: Path
    splits: Path


def planted_options(name: str) -> PreparationOptions:
    """Returns the benchmark's options with small frames and sound at a low sampling rate."""
    options = AUDIOVISUAL_SETS[name].options
    seconds, frames, hop = (10.0, 10, 320) if name == "ave" else (2.0, 4, 160)
    spectrogram = replace(options.spectrogram, rate=SOUND_RATE, seconds=seconds, n_fft=256, hop=hop)
    return replace(options, spectrogram=spectrogram, frames=frames, frame_size=32, frame_seconds=seconds)


def write_planted_media(name: str, folder: Path, seed: int = 0, divisor: int = 1) -> PlantedSet:
    """Writes a benchmark's synthetic set below ``folder`` atomically; an existing one is kept unchanged.

    ``divisor``, from 1 to 4, divides the number of clips.
    """
    target = folder / "synthetic"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with whole(target) as partial:
            (partial / "media").mkdir(parents=True)
            (partial / "splits").mkdir()
            random = np.random.Generator(np.random.PCG64(seed))
            _WRITERS[name](partial / "media", partial / "splits", random, divisor)
    return PlantedSet(target / "media", target / "splits")


def _cremad(media: Path, splits: Path, random: np.random.Generator, divisor: int) -> None:
    """Writes clips of six emotions by ten actors, each with a video and a sound file, as CREMA-D is distributed."""
    rows: list[str] = []
    for actor in range(1001, 1011):
        for take in range(36 // divisor):
            label = take % 6
            clip_id = f"{actor}_T{take // 6:02d}_{EMOTIONS[label]}_XX"
            scene = Scene(label // 2, label % 2)
            write_video(media / "VideoFlash" / f"{clip_id}.flv", frames(scene, random), codec="flv")
            write_sound(media / "AudioWAV" / f"{clip_id}.wav", sound(scene, random))
            rows.append(f"{clip_id},{EMOTIONS[label]}")
    order = random.permutation(len(rows)).tolist()
    test_count = len(rows) // 5
    _write_list(splits / "train.csv", [rows[index] for index in order[test_count:]])
    _write_list(splits / "test.csv", [rows[index] for index in order[:test_count]])


def _kinetics_sounds(media: Path, splits: Path, random: np.random.Generator, divisor: int) -> None:
    rows: dict[str, list[str]] = {"train": [], "test": []}
    count = 300 // divisor
    for number in range(count):
        label, split = number % 6, "test" if number >= count * 4 // 5 else "train"
        clip_id = f"synthetic{number // 2:02d}_{number:06d}_{number + 2:06d}"
        scene = Scene(label // 2, label % 2)
        write_video(media / split / f"{clip_id}.mp4", frames(scene, random), sound(scene, random))
        rows[split].append(f"{clip_id},2,{label}")
    for split, split_rows in rows.items():
        _write_list(splits / f"my_{split}.txt", split_rows)


def _ave(media: Path, splits: Path, random: np.random.Generator, divisor: int) -> None:
    names = ("Bark", "Church bell", "Clock", "Helicopter", "Mandolin", "Train horn")
    files = {"trainSet.txt": 96, "valSet.txt": 24, "testSet.txt": 24}
    annotations = []
    for file, count in files.items():
        rows = []
        for number in range(count // divisor):
            label = number % 6
            onset = int(random.integers(0, 5))
            offset = int(random.integers(onset + 3, 11))
            clip_id = f"{file[:3]}{number:08d}"
            scene = Scene(label // 2, label % 2, seconds=10.0, event=(onset, offset))
            write_video(media / f"{clip_id}.mp4", frames(scene, random), sound(scene, random))
            rows.append(f"{names[label]}&{clip_id}&good&{onset}&{offset}")
        _write_list(splits / file, rows)
        annotations += rows
    _write_list(splits / "Annotations.txt", annotations)


def _ucf101(media: Path, splits: Path, random: np.random.Generator, divisor: int) -> None:
    names = ("Archery", "BabyCrawling", "Basketball", "Biking", "Bowling", "Drumming")
    _write_list(splits / "classInd.txt", [f"{number} {name}" for number, name in enumerate(names, 1)])
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for label, name in enumerate(names):
        for group in range(1, 13):
            split = "test" if group <= 2 else "train"
            for take in range(1, 1 + 4 // divisor):
                clip_id = f"v_{name}_g{group:02d}_c{take:02d}"
                scene = Scene(label // 2, None, direction=label % 2)
                write_video(media / name / f"{clip_id}.avi", frames(scene, random), codec="mpeg4")
                rows[split].append(f"{name}/{clip_id}.avi" + (f" {label + 1}" if split == "train" else ""))
    for split, split_rows in rows.items():
        _write_list(splits / f"{split}list01.txt", split_rows)


_WRITERS: dict[str, Callable[[Path, Path, np.random.Generator, int], None]] = {
    "cremad": _cremad,
    "ks": _kinetics_sounds,
    "ave": _ave,
    "ucf101": _ucf101,
}


def frames(scene: Scene, random: np.random.Generator) -> NDArray[np.uint8]:
    """Draws frames (F, SIDE, SIDE, 3) in which a square of the scene's colour moves over noise."""
    count = round(scene.seconds * FRAME_RATE)
    images = random.integers(90, 130, (count, SIDE, SIDE, 3)).astype(np.uint8)
    size = int(random.integers(16, 24))
    fixed, start = (int(value) for value in random.integers(0, SIDE - size, 2))
    for index in range(count):
        if not _in_event(scene, index / FRAME_RATE):
            continue
        moving = (start + 3 * index) % (SIDE - size)
        row, column = (fixed, moving) if scene.direction == 0 else (moving, fixed)
        images[index, row : row + size, column : column + size] = _COLOURS[scene.colour]
    return images


def sound(scene: Scene, random: np.random.Generator) -> NDArray[np.float32]:
    """Draws a sound (samples,) in which the scene's tone is heard over noise."""
    assert scene.tone is not None
    times = np.arange(round(scene.seconds * SOUND_RATE)) / SOUND_RATE
    pitch = _TONES[scene.tone] * random.uniform(0.9, 1.1)
    tone = 0.3 * np.sin(2 * np.pi * pitch * times)
    if scene.event is not None:
        tone = tone * ((times >= scene.event[0]) & (times < scene.event[1]))
    return np.asarray(tone + 0.05 * random.normal(size=len(times)), np.float32)


def write_video(
    path: Path,
    images: NDArray[np.uint8],
    samples: NDArray[np.float32] | None = None,
    codec: str = "libx264",
    rate: int = FRAME_RATE,
) -> None:
    """Encodes frames (F, H, W, 3), and any sound as AAC, to a video file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = images.shape[2], images.shape[1], "yuv420p"
        video.bit_rate = 400_000
        video.options = {"preset": "ultrafast"} if codec == "libx264" else {}
        audio: Any = None if samples is None else container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for image in images:
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(video.encode(None))
        if samples is not None:
            _encode_sound(container, audio, samples, "fltp")


def write_sound(path: Path, samples: NDArray[np.float32], rate: int = SOUND_RATE) -> None:
    """Writes a 16-bit WAV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        _encode_sound(container, audio, samples, "flt", rate)


def _encode_sound(
    container: Any, stream: Any, samples: NDArray[np.float32], sample_format: str, rate: int = SOUND_RATE
) -> None:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format=sample_format, layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or None)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def _in_event(scene: Scene, time: float) -> bool:
    return scene.event is None or scene.event[0] <= time < scene.event[1]


def _write_list(path: Path, rows: list[str]) -> None:
    path.write_text("".join(f"{row}\n" for row in rows))
