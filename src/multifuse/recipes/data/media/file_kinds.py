"""Tells files that are no media from their first bytes: placeholders, web pages, archives and empty files."""

from pathlib import Path

_READ = 4096
_AGAIN = "download it again"
_UNPACK = "unpack it first"
_LFS = b"version https://git-lfs.github.com/spec/"
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")
_TEXTS = {b"<?xml": "an XML document", b"%PDF-": "a PDF document", b'{"': "a JSON document"}


def wrong_kind(path: Path) -> str | None:
    """Returns what a file is and what to do about it, if its first bytes show that it is no media file.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        return _kind(file.read(_READ))


def _kind(head: bytes) -> str | None:
    if not head:
        return f"an empty file; {_AGAIN}"
    if head.startswith(_LFS):
        return "a git-lfs pointer, not the file that it stands for; fetch that with 'git lfs pull'"
    for start, name in _ARCHIVES.items():
        if head.startswith(start):
            return f"{name}, not a media file; {_UNPACK}"
    if head[257:262] == b"ustar":
        return f"a tar archive, not a media file; {_UNPACK}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES) or (text.startswith(b"<!--") and b"<html" in text):
        return f"a web page (HTML), not a media file; {_AGAIN}"
    for start, name in _TEXTS.items():
        if text.startswith(start.lower()):
            return f"{name}, not a media file; {_AGAIN}"
    return None
