"""Files that are no media are told by their first bytes, and the reason says what to do."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from multifuse.media.decoding import MediaError, read_audio, read_frames
from multifuse.media.file_kinds import wrong_kind
from multifuse.recipes.data.media.clip_rows import ClipTask, clip_row
from multifuse.recipes.data.media.media_index import ClipFiles
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.split_lists.clips import Clip
from tests import media_files
from tests.paths import REAL_DATA

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 84000\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"


LOGIN = "the download needs another link, or a login: open the file to see what it says"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.wav", b"RIFF")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.wav"))
    return buffer.getvalue()


WRONG = {
    "lfs": (POINTER, "it is a git-lfs pointer, not a media file; fetch the file with git lfs pull"),
    "page": (
        PAGE,
        f"it is a web page, not a media file; {LOGIN}",
    ),
    "page with a mark": (
        b"\xef\xbb\xbf<html>",
        f"it is a web page, not a media file; {LOGIN}",
    ),
    "empty": (b"", "it is an empty file; download it again"),
    "zip": (zipped(), "it is a zip archive, not a media file; unpack it first, with unzip"),
    "gzip": (gzip.compress(b"RIFF"), "it is a gzip archive, not a media file; unpack it first, with gunzip"),
    "tar": (tarred(), "it is a tar archive, not a media file; unpack it first, with tar -xf"),
    "json": (b'{"error": "quota"}', "it is a JSON file, not a media file; download it again"),
    "xml": (b"<?xml version='1.0'?><Error/>", "it is an XML document, not a media file; download it again"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_of_the_wrong_kind_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    content, expected = WRONG[name]
    for suffix in ("wav", "mp3", "mp4", "flv"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(content)
        for read in (lambda path: read_audio(path, 8000, 3.0), lambda path: read_frames(path, 2, 16, 3.0)):
            with pytest.raises(MediaError) as caught:
                read(path)
            assert str(caught.value) == f"cannot be decoded: {expected}"


def test_the_report_names_the_kind_of_each_clip(tmp_path: Path) -> None:
    film = media_files.video(tmp_path / "a.flv", 4, "flv")
    (tmp_path / "a.wav").write_bytes(POINTER)
    files = ClipFiles((film,), (tmp_path / "a.wav",))
    row = clip_row(ClipTask(Clip("a", 0, "train"), files, planted_options("cremad")))
    assert row.row is None
    assert row.reason.startswith("a.wav cannot be decoded: it is a git-lfs pointer")


def test_media_are_of_no_wrong_kind(tmp_path: Path) -> None:
    paths = [media_files.wav(tmp_path / "a.wav")]
    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.flv", "flv"), ("a.mpg", "mpeg1video")):
        paths.append(media_files.video(tmp_path / name, 4, codec, rate=25))
    paths += sorted((REAL_DATA / "media").glob("*"))
    assert [path.name for path in paths if path.is_file() and wrong_kind(path)] == []
