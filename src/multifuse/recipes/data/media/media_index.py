"""Finds the files in a folder that contain a clip's pictures and sound, the preferred copies first."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from multifuse.recipes.data.split_lists.clips import PreparationError

VIDEO = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".mpg", ".mpeg", ".wmv", ".3gp")
STILL = (".png", ".jpg", ".jpeg")
"""A lossless copy comes before a lossy one."""
SOUND = (".wav", ".flac", ".m4a", ".opus", ".ogg", ".aac", ".mp3")
"""A lossless copy comes before a lossy one, and newer codecs before mp3, to which archives are usually transcoded."""


@dataclass(frozen=True)
class ClipFiles:
    """A clip's files: the copies of its pictures and of its sound, in the order in which they are tried."""

    pictures: tuple[Path, ...]
    sounds: tuple[Path, ...]
    """The separate sound files, and then the video files."""
    lacks_sound_file: bool = False
    """Whether it has no separate sound file although other clips have one."""
    picture_suffixes: tuple[str, ...] = VIDEO
    """The suffixes by which pictures are found."""


class MediaIndex:
    """Indexes the media files below a folder by stem; anything hidden, and anything but regular files, is ignored.

    Clip ids are only looked up in the index, never joined to a path, so no split list can point outside the folder.

    Args:
        folder: the folder to walk, with its subfolders and the folders that links lead to.
        stills: whether images count as videos of one frame.
        preferred: the suffixes of the files as the benchmark distributes them. Of several files with the same stem,
            these come first, then those whose suffix is earlier in `VIDEO`, `STILL` or `SOUND`, then the first by path.

    Raises:
        PreparationError: if a folder cannot be read.
    """

    def __init__(self, folder: Path, stills: bool = False, preferred: Sequence[str] = ()) -> None:
        self.folder = folder
        self.picture_suffixes = (*VIDEO, *STILL) if stills else VIDEO
        self._pictures: dict[str, list[Path]] = {}
        self._sounds: dict[str, list[Path]] = {}
        self.broken_links: list[str] = []
        """The links that lead nowhere, relative to the folder."""
        order = (*preferred, *self.picture_suffixes, *SOUND)
        paths = [path for path in _files(folder) if not self._is_broken(path)]
        for path in sorted(paths, key=lambda path: (_rank(path, order), path)):
            suffix = path.suffix.lower()
            files = self._pictures if suffix in self.picture_suffixes else self._sounds if suffix in SOUND else None
            if files is not None and path.is_file():
                files.setdefault(path.stem, []).append(path)

    def _is_broken(self, path: Path) -> bool:
        broken = path.is_symlink() and not path.exists()
        if broken:
            self.broken_links.append(str(path.relative_to(self.folder)))
        return broken

    def __len__(self) -> int:
        return len(self.stems)

    @property
    def stems(self) -> set[str]:
        """The stems of all media files."""
        return {*self._pictures, *self._sounds}

    def find(self, stems: Sequence[str]) -> ClipFiles:
        """Returns the copies of a clip's pictures and sound, those of the first of these stems before the others'."""
        pictures = tuple(path for stem in stems for path in self._pictures.get(stem, ()))
        separate = tuple(path for stem in stems for path in self._sounds.get(stem, ()))
        return ClipFiles(
            pictures,
            (*separate, *pictures),
            lacks_sound_file=bool(self._sounds) and not separate,
            picture_suffixes=self.picture_suffixes,
        )


def _rank(path: Path, order: Sequence[str]) -> int:
    suffix = path.suffix.lower()
    return order.index(suffix) if suffix in order else len(order)


def _files(folder: Path) -> list[Path]:
    """Returns the files below a folder; every folder is visited once, however many links lead to it.

    Links are followed after all real folders, so that a file is found by its real path if that is below the folder.
    """
    visited: set[tuple[int, int]] = set()
    links = [folder]
    files: list[Path] = []
    while links:
        link = links.pop(0)
        for root, names, file_names in _walk(link):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in visited:
                names.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            names[:] = sorted(_shown(names))
            links += [root / name for name in names if (root / name).is_symlink()]
            files += [root / name for name in _shown(file_names)]
    return files


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    for root, names, file_names in os.walk(folder, onerror=_refuse):
        yield Path(root), names, file_names


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _refuse(error: OSError) -> None:
    raise PreparationError(f"--media: the folder {error.filename} cannot be read: {error.strerror}")
