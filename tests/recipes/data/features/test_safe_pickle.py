"""The unpickler: it reads what numpy writes, and refuses everything else before any code runs."""

import contextlib
import io
import os
import pickle
import pickletools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifuse.recipes.data.features import safe_pickle
from multifuse.recipes.data.features.safe_pickle import UnsafePickleError
from tests.files import mmsa_splits, write

ARRAYS: list[np.ndarray[Any, Any]] = [
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)),
    np.array(["good", "bad film"]),
    np.array([b"a", b"bc"]),
    np.array([True, False]),
    np.array(["text", 3, None, [1, 2]], dtype=object),
    np.zeros((0, 5)),
    np.arange(4, dtype=">i4"),
    np.array(2.5),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("index", range(len(ARRAYS)))
def test_arrays_of_every_kind_and_protocol_are_read(tmp_path: Path, index: int, protocol: int) -> None:
    content = {"array": ARRAYS[index], "list": [1, "a", (None, 2.5)]}
    loaded = safe_pickle.load(write(tmp_path / "file.pkl", content, protocol))
    assert loaded["list"] == content["list"]
    assert loaded["array"].dtype == ARRAYS[index].dtype
    np.testing.assert_array_equal(loaded["array"], ARRAYS[index])


def test_numpy_scalars_are_read(tmp_path: Path) -> None:
    loaded = safe_pickle.load(write(tmp_path / "file.pkl", [np.float32(1.5), np.int64(3), np.str_("a")]))
    assert loaded == [1.5, 3, "a"]


class Calls:
    """Pickles as a call of ``function(*arguments)``, as a hostile file would."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    "hostile",
    [
        Calls(os.system, "touch executed"),
        Calls(eval, "__import__('os').system('touch executed')"),
        Calls(getattr, [], "append"),
        Calls(np.ndarray, (10**12,)),
        Calls(np.fromfile, "/etc/hostname"),
        Calls(np.dtype, [("a", "O")]),
        Calls(Path, "x"),
        np.dtype("f4"),
        np.ndarray,
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([Calls(os.system, "touch executed")], dtype=object),
        {1, 2}.__class__,
    ],
)
def test_anything_else_is_refused_and_nothing_runs(
    tmp_path: Path, hostile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a command that runs would leave its mark
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"train": hostile}))
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.load(tmp_path / "file.pkl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pkl"]


def test_an_element_type_cannot_be_widened_after_an_array_uses_it(tmp_path: Path) -> None:
    """A forged BUILD once made a 4-byte array read 256 bytes of the process's memory."""
    array = pickle.dumps(np.array([b"a", b"b", b"c", b"d"]), protocol=2)
    forged = array.replace(b"K\x01K\x01K\x00t", b"K\x40K\x01K\x00t")
    assert forged != array
    (tmp_path / "file.pkl").write_bytes(forged)
    assert safe_pickle.load(tmp_path / "file.pkl").nbytes == 4


def test_a_declared_shape_beyond_the_data_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps(np.zeros(3, np.float32), protocol=2)
    forged = data.replace(b"K\x03\x85", b"K\xff\x85")
    assert forged != data
    (tmp_path / "file.pkl").write_bytes(forged)
    with pytest.raises(UnsafePickleError, match="does not match its data"):
        safe_pickle.load(tmp_path / "file.pkl")


@pytest.mark.parametrize("name", ["numpy\nndarray", "numpy\ndtype", "_codecs\nencode"])
def test_a_file_cannot_change_objects_that_other_files_use(tmp_path: Path, name: str) -> None:
    # GLOBAL name, then (None, {"__defaults__": (7,)}) as the state of BUILD.
    forged = b"c" + name.encode() + b"\n(N}(U\x0c__defaults__(K\x07tutb."
    (tmp_path / "file.pkl").write_bytes(forged)
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.load(tmp_path / "file.pkl")
    assert safe_pickle.load(write(tmp_path / "good.pkl", ARRAYS[0], protocol=2)).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_elements_of_size_zero_cannot_claim_memory(tmp_path: Path) -> None:
    forged = pickle.dumps(np.zeros(3, "S1"), protocol=2).replace(b"S1", b"S0").replace(b"U\x03\x00\x00\x00", b"U\x00")
    (tmp_path / "file.pkl").write_bytes(forged)
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.load(tmp_path / "file.pkl")


def test_deeply_nested_containers_are_refused(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(200):
        nested = [nested]
    with pytest.raises(UnsafePickleError, match="nested"):
        safe_pickle.load(write(tmp_path / "file.pkl", nested))


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",  # LONG_BINPUT at index 2^31 - 1: the C unpickler allocates all before it
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",  # BYTEARRAY8
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",  # BINBYTES8
        b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.",  # BINUNICODE8
        b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.",  # FRAME
        b"\x80\x02\x8b\xff\xff\xff\x7fx.",  # LONG4
    ],
)
def test_no_memory_is_allocated_for_a_declared_size(tmp_path: Path, bomb: bytes) -> None:
    (tmp_path / "file.pkl").write_bytes(bomb)
    tracemalloc.start()
    with contextlib.suppress(pickle.UnpicklingError):
        assert safe_pickle.load(tmp_path / "file.pkl") == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_lists_that_expand_to_more_values_than_the_file_has_bytes_are_refused(tmp_path: Path) -> None:
    nested: list[Any] = [0.0] * 10
    for _ in range(9):
        nested = [nested] * 10
    with pytest.raises(UnsafePickleError, match="shared containers expand to more than"):
        safe_pickle.load(write(tmp_path / "file.pkl", {"audio": nested}))
    assert safe_pickle.load(write(tmp_path / "file.pkl", [nested[0][0][0][0][0]] * 3))


VALID = pickle.dumps(mmsa_splits(count=2), protocol=4)


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255), st.booleans())
def test_damaged_files_give_an_unpickling_error_or_plain_data(position: int, byte: int, cut: bool) -> None:
    damaged = VALID[:position] if cut else VALID[:position] + bytes([byte]) + VALID[position + 1 :]

    class File:
        """A path whose file contains the damaged bytes."""

        def open(self, _: str) -> io.BytesIO:
            return io.BytesIO(damaged)

    try:
        safe_pickle.load(File())  # type: ignore[arg-type]
    except pickle.UnpicklingError:
        return
    names = {arg for opcode, arg, _ in pickletools.genops(damaged) if opcode.name in ("GLOBAL", "INST")}
    assert not names
