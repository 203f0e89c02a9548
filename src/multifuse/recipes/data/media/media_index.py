"""Which files of a folder hold a clip's pictures and its sound."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VIDEO = (".mp4", ".avi", ".mkv", ".webm", ".flv", ".mpg", ".mpeg", ".mov", ".m4v", ".wmv", ".3gp")
STILL = (".png", ".jpg", ".jpeg")
SOUND = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac", ".opus")


@dataclass(frozen=True)
class ClipFiles:
    """A clip's files; its sound is the video's where it has no file of its own."""

    pictures: Path | None
    sound: Path | None


class MediaIndex:
    """The media files below a folder, by stem; hidden ones are passed over, and what is no regular file (a pipe).

    Ids are only looked up here, never joined to a path, so that no list can point outside the folder.

    Args:
        folder: walked once, subfolders too. Of several files of one stem the first counts, by path.
        stills: pictures serve as videos of one frame.
    """

    def __init__(self, folder: Path, stills: bool = False) -> None:
        self.folder = folder
        self._pictures: dict[str, Path] = {}
        self._sounds: dict[str, Path] = {}
        pictures = VIDEO + STILL if stills else VIDEO
        found = [Path(root) / name for root, _, names in os.walk(folder) for name in names if not name.startswith(".")]
        for path in sorted(found):
            suffix = path.suffix.lower()
            own = self._pictures if suffix in pictures else self._sounds if suffix in SOUND else None
            if own is not None and path.is_file():
                own.setdefault(path.stem, path)

    def __len__(self) -> int:
        return len(self.stems)

    @property
    def stems(self) -> set[str]:
        """The stems of all media files."""
        return {*self._pictures, *self._sounds}

    def find(self, stems: Sequence[str]) -> ClipFiles:
        """The files of the first of these stems that has any."""
        pictures = next((self._pictures[stem] for stem in stems if stem in self._pictures), None)
        sound = next((self._sounds[stem] for stem in stems if stem in self._sounds), pictures)
        return ClipFiles(pictures, sound)
