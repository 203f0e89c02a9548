"""The audio-visual benchmarks: the reader of each one's split lists, and the conventions of its preparation."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from multifuse.media.spectrogram import SpectrogramOptions
from multifuse.recipes.data.media.preparation_options import PreparationOptions
from multifuse.recipes.data.split_lists.av_digits import read_av_digits
from multifuse.recipes.data.split_lists.ave import read_ave
from multifuse.recipes.data.split_lists.clips import ClipList
from multifuse.recipes.data.split_lists.cremad import read_cremad
from multifuse.recipes.data.split_lists.kinetics_sounds import read_kinetics_sounds
from multifuse.recipes.data.split_lists.ucf101 import read_ucf101

_TEN_SECONDS = PreparationOptions(spectrogram=SpectrogramOptions(seconds=10.0), frames=10, frame_seconds=10.0)
_LABELLED_SECONDS = replace(_TEN_SECONDS, spectrogram=replace(_TEN_SECONDS.spectrogram, fill="zeros"))
"""For labels of every second: a repeated sound would be beside the labels of other seconds."""


@dataclass(frozen=True)
class AudioVisualSet:
    """A benchmark; ``name`` is its name on the command line."""

    name: str
    title: str
    read: Callable[..., ClipList]
    """The function that reads the split lists in a folder; it takes ``list_options`` as keyword arguments."""
    options: PreparationOptions
    """The conventions by which its clips are prepared."""
    list_options: dict[str, Any] = field(default_factory=dict)
    """The options of ``read``, with their default values."""
    stills: bool = False
    """Whether its pictures are still images."""
    one_folder: bool = False
    """Whether the split lists are in the same folder as the media files."""
    preferred: tuple[str, ...] = ()
    """The suffixes of the files as they are distributed, which come before other copies of the same clip."""
    network: str = "resnet-18"
    """The default backbone of its pictures and sounds."""

    def clips(self, splits: Path, **list_options: Any) -> ClipList:
        """Reads the split lists in a folder, with these options in place of the defaults.

        Raises:
            SplitListError: if a list is missing or malformed.
        """
        return self.read(splits, **{**self.list_options, **list_options})


AUDIOVISUAL_SETS = {
    data_set.name: data_set
    for data_set in (
        AudioVisualSet(
            "cremad",
            "CREMA-D",
            read_cremad,
            PreparationOptions(frames=3, frame_seconds=3.0),
            {"split": "published"},
            preferred=(".flv", ".wav"),
        ),
        AudioVisualSet(
            "ks", "Kinetics-Sounds", read_kinetics_sounds, _TEN_SECONDS, {"classes": None}, preferred=(".mp4",)
        ),
        AudioVisualSet("ave", "AVE", read_ave, _LABELLED_SECONDS, preferred=(".mp4",)),
        AudioVisualSet(
            "ucf101",
            "UCF101",
            read_ucf101,
            PreparationOptions(sound=None, frames=8, frame_seconds=10.0, flow="dis"),
            {"fold": 1},
            preferred=(".avi",),
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
                    offset=0.01,  # any smaller, and silence is further from noise than noise is from the voice
                ),
                frames=1,
                frame_size=32,
                image_format="png",
            ),
            stills=True,
            one_folder=True,
            preferred=(".png", ".wav"),
            network="resnet-small",
        ),
    )
}
