"""Tells what kind of file the first bytes of a file belong to, for errors about a file of the wrong kind."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_HEAD = 4096
"""The number of first bytes that `head_of` reads."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file, by its name with the article, such as "a gzip archive", and what to do with it."""

    name: str
    advice: str
    """What to do where a feature file is expected; for a wrapping, whatever is expected."""
    role: Literal["data", "table", "picture", "wrapping"] = "data"
    """A wrapping is what the wanted file is inside of, or stands in the place of."""


_EXPORT = "load it with the program or library that wrote it, and write a pickle"
_MODEL = "this is where models are saved; give the file of features"


def _archive(name: str, command: str) -> FileKind:
    return FileKind(name, f"unpack it first, with {command}", "wrapping")


_SIGNATURES: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"\x1f\x8b", _archive("a gzip archive", "gunzip")),
    (0, b"\xfd7zXZ\0", _archive("an xz archive", "unxz")),
    (0, b"\x28\xb5\x2f\xfd", _archive("a zstd archive", "unzstd")),
    (0, b"\x04\x22\x4d\x18", _archive("an lz4 archive", "unlz4")),
    (0, b"7z\xbc\xaf\x27\x1c", _archive("a 7z archive", "7z x")),
    (0, b"Rar!\x1a\x07", _archive("a rar archive", "unrar")),
    (257, b"ustar", _archive("a tar archive", "tar -xf")),
    (0, b"\x93NUMPY", FileKind("a numpy array file (.npy)", "put its array in a dict of splits, and write a pickle")),
    (0, b"MATLAB 7.3 MAT-file", FileKind("a MATLAB file (7.3, which is HDF5)", "read it with h5py, write a pickle")),
    (0, b"MATLAB 5.0 MAT-file", FileKind("a MATLAB file (5)", "read it with scipy.io.loadmat, and write a pickle")),
    (0, b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file (.h5, .csd)", "read it with h5py or mmsdk, and write a pickle")),
    (0, b"PAR1", FileKind("a Parquet file", "read it with pandas, and write a pickle of numpy arrays")),
    (0, b"ARROW1", FileKind("an Arrow file", "read it with pyarrow, and write a pickle of numpy arrays")),
    (0, b"FEA1", FileKind("a Feather file", "read it with pandas, and write a pickle of numpy arrays")),
    (0, b"SQLite format 3\0", FileKind("an SQLite database", _EXPORT)),
    (0, b"%PDF-", FileKind("a PDF document", "give the data file itself")),
    (0, b"\x89PNG\r\n\x1a\n", FileKind("a PNG image", "give the data file itself", "picture")),
    (0, b"\xff\xd8\xff", FileKind("a JPEG image", "give the data file itself", "picture")),
    # torch.save before 1.6: a pickle that starts with this number.
    (0, b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", FileKind("a torch.save file (.pt)", _EXPORT)),
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        FileKind("a git-lfs pointer", "fetch the file with git lfs pull", "wrapping"),
    ),
    (0, b"/annex/objects/", FileKind("a git-annex pointer", "fetch the file with git annex get", "wrapping")),
)
_TORCH = FileKind("a torch.save file (.pt)", "load it with torch.load, and write a pickle of numpy arrays")
_NPZ = FileKind("a numpy archive (.npz)", "load it with numpy.load, and write a pickle of a dict of splits")
_EXCEL = FileKind("an Excel workbook", "read it with pandas, and write a pickle of numpy arrays")
_ZIP = _archive("a zip archive", "unzip")
_BZIP2 = _archive("a bzip2 archive", "bunzip2")
_SAFETENSORS = FileKind("a safetensors file", _MODEL)
_WEB_PAGE = FileKind(
    "a web page", "the download needs another link, or a login: open the file to see what it says", "wrapping"
)
_XML = FileKind("an XML document", "give the data file itself")
_JSON = FileKind("a JSON file", "load it with json.load, make numpy arrays of its lists, and write a pickle")
_TABLE = FileKind("a text table (csv or tsv)", "read it with pandas, and write a pickle of numpy arrays", "table")
_TEXT = FileKind("a text file", "give the data file itself")


def kind_of(head: bytes) -> FileKind | None:
    """Returns the kind of file that starts with these bytes, ``None`` if its signature is not known.

    Text without a signature is left to `text_kind_of`.

    Example:
        >>> kind_of(bytes.fromhex("1f8b0800")).name
        'a gzip archive'
    """
    for offset, signature, kind in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(head)
    if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", head):
        return _BZIP2
    if re.match(rb".{4}\0{4}\{[\s\"}]", head, re.DOTALL):
        return _SAFETENSORS
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")):
        return _WEB_PAGE
    if start.startswith(b"<?xml"):
        return _WEB_PAGE if b"<html" in start else _XML
    return _JSON if _is_json(start) else None


def text_kind_of(head: bytes) -> FileKind | None:
    """Returns whether bytes without a signature are a table or other text, ``None`` if they are not text."""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head.decode(encoding, "ignore")
    if not text.strip() or any(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in text):
        return None
    if len(text.encode(encoding)) < len(head) - 8:  # more than a letter that the end cuts in two was not UTF-8
        return None
    lines = [line for line in text.splitlines() if line.strip()][:2]
    is_table = any(all(delimiter in line for line in lines) for delimiter in ",\t;|")
    return _TABLE if is_table else _TEXT


def head_of(path: Path) -> bytes:
    """Returns the first bytes of a file.

    Raises:
        OSError: if it cannot be opened.
    """
    with path.open("rb") as file:
        return file.read(_HEAD)


def _zip_kind(head: bytes) -> FileKind:
    """Tells archives apart by the name of their first member."""
    size = int.from_bytes(head[26:28], "little")
    member = head[30 : 30 + size]
    if member.endswith(b".npy"):
        return _NPZ
    if member.endswith((b"/data.pkl", b"/.format_version", b"/.data/serialization_id", b"/version")):
        return _TORCH
    return _EXCEL if member.startswith((b"xl/", b"[Content_Types].xml")) else _ZIP


def _is_json(start: bytes) -> bool:
    """Returns whether text starts as a JSON object or list does; no pickle starts with a bracket."""
    return re.match(rb"[\[{]\s*([\"\[{\]}\-0-9]|true|false|null|nan)", start) is not None and b"\0" not in start
