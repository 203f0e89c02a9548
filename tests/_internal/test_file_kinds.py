"""Files of the wrong kind are told from their first bytes, and the error says what to do with them."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from multifuse._internal.file_kinds import kind_of, text_kind_of
from multifuse.recipes.commands.main import main
from multifuse.recipes.data.features.mmsa import read_mmsa
from tests.files import mmsa_splits, write

PICKLE = pickle.dumps(mmsa_splits(count=2))


def _numpy(write_to: Any, *arguments: Any, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    write_to(buffer, *arguments, **arrays)
    return buffer.getvalue()


def _torch(**options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, **options)
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mosi.pkl", PICKLE)
    return buffer.getvalue()


TENSORS = {"a": torch.zeros(3)}
FILES = {
    "a gzip archive": gzip.compress(PICKLE),
    "a bzip2 archive": bz2.compress(PICKLE),
    "an xz archive": lzma.compress(PICKLE),
    "a zip archive": _zip(),
    "a numpy array file (.npy)": _numpy(np.save, np.zeros((2, 3))),
    "a numpy archive (.npz)": _numpy(np.savez, a=np.zeros(3)),
    "an HDF5 file (.h5, .csd)": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a MATLAB file (5)": b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x01IM" + bytes(50),
    "a MATLAB file (7.3, which is HDF5)": b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n",
    "a JSON file": json.dumps({"train": {"id": ["a"]}}).encode(),
    "a web page": b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "a Parquet file": b"PAR1" + bytes(50) + b"PAR1",
    "a safetensors file": save(TENSORS),
    "a torch.save file (.pt)": _torch(),
    "a text file": b"features of MOSI\nare somewhere else\n",
}
MORE = [
    ("a torch.save file (.pt)", _torch(_use_new_zipfile_serialization=False)),
    ("a JSON file", b"[\n  1, 2]"),
    ("a text table (csv or tsv)", b"id,text,label\na,good,1.5\n"),
    ("a text table (csv or tsv)", b"clip\tlabel\na\t1\n"),
    ("a text table (csv or tsv)", "id;Ärger\na;1\n".encode("utf-16")),
]


@pytest.mark.parametrize(("name", "content"), [*FILES.items(), *MORE])
def test_a_file_of_another_kind_is_named_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mosi.pkl"
    path.write_bytes(content)
    assert main(["train", "mosi", "--data", str(path), "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"{path}: cannot be read as a pickle: it is {name}; " in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_never_taken_for_another_kind(tmp_path: Path, protocol: int) -> None:
    content = write(tmp_path / "mosi.pkl", mmsa_splits(count=2), protocol)
    assert kind_of(content.read_bytes()) is None
    assert read_mmsa(content).widths == {"text": 7, "vision": 4, "audio": 5}


def test_bytes_that_are_no_text_are_not_taken_for_it() -> None:
    assert text_kind_of(b"\x80\x04\x95abc") is None
    assert text_kind_of(b"a\0b") is None
    assert text_kind_of(b"") is None
