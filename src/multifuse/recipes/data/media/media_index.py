"""Finds the files in a folder that contain a clip's pictures and sound."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VIDEO = (".mp4", ".avi", ".mkv", ".webm", ".flv", ".mpg", ".mpeg", ".mov", ".m4v", ".wmv", ".3gp")
STILL = (".png", ".jpg", ".jpeg")
SOUND = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac", ".opus")


@dataclass(frozen=True)
class ClipFiles:
    """A clip's files; ``sound`` is the video file unless there is a separate sound file."""

    pictures: Path | None
    sound: Path | None


class MediaIndex:
    """Indexes the media files below a folder by stem; hidden files and anything but regular files are ignored.

    Clip ids are only looked up in the index, never joined to a path, so no split list can point outside the folder.

    Args:
        folder: the folder to walk, with its subfolders. If several files share a stem, the first by path is used.
        stills: whether images count as videos of one frame.
    """

    def __init__(self, folder: Path, stills: bool = False) -> None:
        self.folder = folder
        self._pictures: dict[str, Path] = {}
        self._sounds: dict[str, Path] = {}
        pictures = VIDEO + STILL if stills else VIDEO
        paths = [Path(root) / name for root, _, names in os.walk(folder) for name in names if not name.startswith(".")]
        for path in sorted(paths):
            suffix = path.suffix.lower()
            files = self._pictures if suffix in pictures else self._sounds if suffix in SOUND else None
            if files is not None and path.is_file():
                files.setdefault(path.stem, path)

    def __len__(self) -> int:
        return len(self.stems)

    @property
    def stems(self) -> set[str]:
        """The stems of all media files."""
        return {*self._pictures, *self._sounds}

    def find(self, stems: Sequence[str]) -> ClipFiles:
        """Returns the pictures and the sound of a clip, each from the first of these stems that has any."""
        pictures = next((self._pictures[stem] for stem in stems if stem in self._pictures), None)
        sound = next((self._sounds[stem] for stem in stems if stem in self._sounds), pictures)
        return ClipFiles(pictures, sound)
