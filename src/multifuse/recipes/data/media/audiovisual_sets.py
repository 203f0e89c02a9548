"""The audio-visual benchmarks: how each is listed, and the conventions that it is prepared by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multifuse.recipes.data.media.clip_rows import PreparationOptions
from multifuse.recipes.data.media.spectrogram import SpectrogramOptions
from multifuse.recipes.data.split_lists.av_digits import read_av_digits
from multifuse.recipes.data.split_lists.ave import read_ave
from multifuse.recipes.data.split_lists.clips import ClipList
from multifuse.recipes.data.split_lists.cremad import read_cremad
from multifuse.recipes.data.split_lists.kinetics_sounds import read_kinetics_sounds
from multifuse.recipes.data.split_lists.ucf101 import read_ucf101

_TEN_SECONDS = PreparationOptions(spectrogram=SpectrogramOptions(seconds=10.0), frames=10, frame_seconds=10.0)


@dataclass(frozen=True)
class AudioVisualSet:
    """A benchmark, by the name that the commands know it by."""

    name: str
    title: str
    read: Callable[..., ClipList]
    """Reads the lists in a folder; takes the benchmark's own choices (``list_options``) by keyword."""
    options: PreparationOptions
    list_options: dict[str, Any] = field(default_factory=dict)
    """The choices that the lists leave, and what is chosen where nothing else is said."""
    stills: bool = False
    """Its pictures are files of one picture."""
    one_folder: bool = False
    """The lists lie in the folder of the media."""
    network: str = "resnet-18"
    """What its pictures and sounds are read by."""

    def clips(self, splits: Path, **chosen: Any) -> ClipList:
        """The clips of the lists in a folder.

        Raises:
            SplitListError: a list that is missing or malformed.
        """
        return self.read(splits, **{**self.list_options, **chosen})


AUDIOVISUAL_SETS = {
    data_set.name: data_set
    for data_set in (
        AudioVisualSet(
            "cremad",
            "CREMA-D",
            read_cremad,
            PreparationOptions(frames=3, frame_seconds=3.0),
            {"split": "published"},
        ),
        AudioVisualSet("ks", "Kinetics-Sounds", read_kinetics_sounds, _TEN_SECONDS, {"classes": None}),
        AudioVisualSet("ave", "AVE", read_ave, _TEN_SECONDS),
        AudioVisualSet(
            "ucf101",
            "UCF101",
            read_ucf101,
            PreparationOptions(sound=None, frames=8, frame_seconds=10.0, flow="dis"),
            {"fold": 1},
        ),
        AudioVisualSet(
            "av_digits",
            "spoken and written digits",
            read_av_digits,
            PreparationOptions(
                spectrogram=SpectrogramOptions(
                    rate=8000,
                    seconds=0.7,
                    fill="zeros",
                    n_fft=256,
                    hop=80,
                    mels=40,
                    offset=0.01,  # with less, silence lies further from the noise than the noise from the voice
                ),
                frames=1,
                frame_size=32,
                image_format="png",
            ),
            stills=True,
            one_folder=True,
            network="resnet-small",
        ),
    )
}
