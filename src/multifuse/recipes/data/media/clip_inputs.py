"""How a prepared set was read from its media files, as the processor of a model trained on it reads new files."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from multifuse.media.spectrogram import SpectrogramOptions
from multifuse.processing import FrameInput, SoundInput

_OPTIONS = {"form": "sound", "count": "frames", "size": "frame_size", "seconds": "frame_seconds"}
"""The preparation's names of the settings that a modality's input names otherwise."""
_SPECTROGRAM_ONLY = ("n_fft", "hop", "mels", "offset")


def clip_input(modality: str, record: Mapping[str, Any], segments: bool) -> SoundInput | FrameInput:
    """Returns how a modality of a set was read, from the record of its preparation.

    ``segments`` says whether the clips have labels of segments, for each of which there is then a frame.
    """
    if modality == "audio":
        return SoundInput(record["sound"], SpectrogramOptions(**record["spectrogram"]))
    return FrameInput(
        record["frames"],
        record["frame_size"],
        record["frame_seconds"],
        every_part=segments,
        flow=None if modality != "flow" else "dis" if record["flow"] == "dis" else "given",
    )


def input_differences(prepared: SoundInput | FrameInput, trained: Any) -> list[str]:
    """Returns how a set was read otherwise than a model reads, option by option; an empty list if it was not."""
    theirs, ours = _options(prepared), _options(trained)
    return [f"{name} {value!r}, not {ours.get(name)!r}" for name, value in theirs.items() if ours.get(name) != value]


def _options(read: Any) -> dict[str, Any]:
    """Returns what decides how a modality is read, by the names of the preparation's options."""
    values = {_OPTIONS.get(name, name): value for name, value in asdict(read).items()}
    if isinstance(read, SoundInput):
        spectrogram = values.pop("options")
        unused = _SPECTROGRAM_ONLY if read.form == "waveform" else ()
        values |= {name: value for name, value in spectrogram.items() if name not in unused}
    return values
