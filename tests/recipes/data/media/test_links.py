"""Folders behind links below --media: followed once, read and never written."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.media_index import MediaIndex
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.data.split_lists.clips import PreparationError
from tests import media_files


def test_linked_folders_are_searched_once_and_cycles_end(tmp_path: Path) -> None:
    elsewhere, media = tmp_path / "elsewhere", tmp_path / "media"
    media_files.wav(elsewhere / "deep/outside.wav")
    media_files.wav(media / "z/inside.wav")
    (elsewhere / "deep/cycle").symlink_to(elsewhere)
    (media / "a").symlink_to(media / "z")
    (media / "linked").symlink_to(elsewhere)
    (media / "linked again").symlink_to(elsewhere / "deep")
    (media / "itself").symlink_to(media)
    (media / "loop").symlink_to(media / "loop")
    index = MediaIndex(media)
    assert index.stems == {"inside", "outside"}
    assert index.find(["inside"]).sounds == (media / "z/inside.wav",), "the real path is the one that is found"
    assert index.find(["outside"]).sounds == (media / "linked/deep/outside.wav",)
    assert index.broken_links == ["loop"]


def test_hidden_folders_are_passed_over_as_hidden_files_are(tmp_path: Path) -> None:
    media_files.wav(tmp_path / ".trash/deleted.wav")
    media_files.wav(tmp_path / "kept.wav")
    assert MediaIndex(tmp_path).stems == {"kept"}


def test_a_benchmark_whose_folders_are_links_is_prepared_from_them(tmp_path: Path) -> None:
    """With the audio folder a link, the films' own sound used to be taken instead, without a word."""
    source = media_files.kinetics_sounds(tmp_path / "source", clips=4, train=3)
    for path in (source / "media").glob("*.mp4"):
        media_files.wav(tmp_path / f"sounds/{path.stem}.wav")
    media = tmp_path / "media"
    media.mkdir()
    (media / "films").symlink_to(source / "media")
    (media / "sounds").symlink_to(tmp_path / "sounds")
    before = {path: path.stat().st_mtime_ns for path in [*source.rglob("*"), *(tmp_path / "sounds").rglob("*")]}
    report = prepare(
        Preparation(
            AUDIOVISUAL_SETS["ks"], media, source / "splits", tmp_path / "out", planted_options("ks"), quiet=True
        )
    )
    assert (sum(report.clips.values()), report.skipped) == (4, [])
    assert report.sources == {"pictures": {"films/*.mp4": 4}, "sound": {"sounds/*.wav": 4}}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len([*source.rglob("*"), *(tmp_path / "sounds").rglob("*")]) == len(before)


def test_links_that_lead_nowhere_are_reported(tmp_path: Path) -> None:
    source = media_files.kinetics_sounds(tmp_path / "source", clips=4, train=3)
    (source / "media/sounds").symlink_to(tmp_path / "not mounted")
    job = Preparation(
        AUDIOVISUAL_SETS["ks"], source / "media", source / "splits", tmp_path / "out", planted_options("ks"), quiet=True
    )
    assert prepare(job).broken_links == ["sounds"]
    for path in (source / "media").glob("*.mp4"):
        path.unlink()
    with pytest.raises(PreparationError, match="contains no media files; its links lead nowhere, such as sounds"):
        prepare(job)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def scan_as_no_root(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_as_no_root)
    with pytest.raises(PreparationError, match="closed cannot be read: Permission denied"):
        MediaIndex(tmp_path)
