"""An unpickler that accepts numpy arrays and plain containers, and nothing else.

A pickle names functions to call. This unpickler maps the few names that numpy writes to its own replacements, which
check their arguments and build the arrays themselves; any other name is refused before anything is called.
"""

import math
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

_MAX_DEPTH = 16
_LEAST_EXPANDED = 1 << 20


class UnsafePickleError(pickle.UnpicklingError):
    """Raised when a file contains something that is neither a numpy array nor a plain container."""


class ByteString(str):
    """A string of Python 2, which is bytes: each letter is one of them."""

    def decoded(self) -> str:
        """Returns the text that the bytes encode in UTF-8.

        Raises:
            UnicodeDecodeError: if they are not UTF-8.
        """
        return self.encode("latin1").decode("utf-8")


class _Callable:
    """A function that a file may call, but whose state it cannot set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise UnsafePickleError("it sets the state of a function")


def _refused(*_: object) -> object:
    raise UnsafePickleError("it calls numpy.ndarray")


_ARRAY_TYPE = _Callable(_refused)


class _Dtype:
    """Replaces ``numpy.dtype`` while a file is read: an element type whose size no later state can change."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSUO][0-9]{0,6}", code):
            raise UnsafePickleError(f"an array has the element type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise UnsafePickleError(f"an element type has the state {state!r}")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Replaces an array until its state, ``(version, shape, dtype, fortran, data)``, has been checked."""

    array: np.ndarray[Any, Any]

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafePickleError(f"an array has the state {type(state).__name__}")
        _, shape, dtype, fortran, data = state
        self.array = _filled(data, dtype, shape, "F" if fortran else "C")


def _filled(data: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    """Builds an array, after checking its declared shape against the size of the data."""
    if not isinstance(dtype, _Dtype) or not _is_shape(shape) or order not in ("C", "F"):
        raise UnsafePickleError(f"an array is built from {type(dtype).__name__} of shape {shape!r}")
    assert isinstance(shape, tuple)
    size = math.prod(shape)
    if dtype.dtype.hasobject:
        if not isinstance(data, list) or len(data) != size:
            raise UnsafePickleError(f"an array of shape {shape} holds {type(data).__name__}")
        flat = np.empty(size, object)
        memo: dict[int, Any] = {}
        flat[:] = [_unwrapped(item, memo) for item in data]
    else:
        raw = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(raw, bytes | bytearray | memoryview) or memoryview(raw).nbytes != size * dtype.dtype.itemsize:
            raise UnsafePickleError(f"an array of shape {shape} and type {dtype.dtype} does not match its data")
        if size and not dtype.dtype.itemsize:
            raise UnsafePickleError(f"an array of shape {shape} has elements of size 0")
        flat = np.frombuffer(raw, dtype.dtype) if size else np.empty(0, dtype.dtype)
    array: np.ndarray[Any, Any] = flat.reshape(shape, order=order)  # type: ignore[call-overload]
    return array


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)


def _reconstruct(subtype: object, shape: object, typecode: object) -> _Array:
    if subtype is not _ARRAY_TYPE or shape != (0,) or typecode not in (b"b", "b"):
        raise UnsafePickleError(f"an array is built from {(subtype, shape, typecode)!r}")
    return _Array()


def _scalar(dtype: object, data: object = b"") -> object:
    if isinstance(dtype, _Dtype) and dtype.dtype.hasobject:
        raise UnsafePickleError("a scalar holds an object")
    return _filled(data, dtype, (1,), "C")[0]


def _from_buffer(buffer: object, dtype: object, shape: object, order: object) -> _Array:
    wrapped = _Array()
    wrapped.array = _filled(buffer, dtype, shape, order)
    return wrapped


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickleError(f"bytes are encoded as {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _no_factory(*_: object) -> object:
    raise UnsafePickleError("it calls a type")


def _dict(pairs: object = ()) -> dict[Any, Any]:
    """Returns a plain dict in place of an OrderedDict, whose pairs old protocols give as a list of lists."""
    if not isinstance(pairs, list | tuple) or not all(isinstance(pair, list | tuple) for pair in pairs):
        raise UnsafePickleError(f"a dict is built from a {type(pairs).__name__}")
    return dict(pairs)


def _default_dict(*_: object) -> dict[Any, Any]:
    """Returns a plain dict in place of a defaultdict; its factory is never called."""
    return {}


_ADMITTED: dict[tuple[str, str], _Callable] = {
    ("numpy", "ndarray"): _ARRAY_TYPE,
    ("numpy", "dtype"): _Callable(_Dtype),
    ("_codecs", "encode"): _Callable(_encode),
    ("builtins", "bytes"): _Callable(_no_bytes),  # old protocols write empty bytes as bytes()
    ("__builtin__", "bytes"): _Callable(_no_bytes),
}
for _builtins in ("builtins", "__builtin__"):
    for _factory in ("dict", "list", "tuple", "int", "float", "str"):  # of a defaultdict
        _ADMITTED[_builtins, _factory] = _Callable(_no_factory)
_ADMITTED["collections", "OrderedDict"] = _Callable(_dict)
_ADMITTED["collections", "defaultdict"] = _Callable(_default_dict)
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Callable(_reconstruct)
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Callable(_scalar)
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Callable(_from_buffer)


def _unwrapped(value: Any, memo: dict[int, Any], depth: int = 0) -> Any:
    """Replaces each `_Array` in nested containers by its array; an object that occurs repeatedly is visited once."""
    if depth > _MAX_DEPTH:
        raise UnsafePickleError(f"containers are nested more than {_MAX_DEPTH} deep")
    if isinstance(value, _Array):
        if not hasattr(value, "array"):
            raise UnsafePickleError("an array has no content")
        return value.array
    if isinstance(value, _Dtype | _Callable):
        raise UnsafePickleError("a type or a function takes the place of data")
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in memo:
        if isinstance(value, dict):
            memo[id(value)] = {key: _unwrapped(item, memo, depth + 1) for key, item in value.items()}
        else:
            memo[id(value)] = type(value)(_unwrapped(item, memo, depth + 1) for item in value)
    return memo[id(value)]


def _check_expanded(content: object, most: int) -> None:
    """Checks that the content, with shared containers counted at every occurrence, has at most this many values.

    Ten lists, each containing the previous one ten times, take a few bytes but would become an array of 10^10 values.
    """
    if _expanded_size(content, {}) > most:
        raise UnsafePickleError(f"shared containers expand to more than {most} values")


def _expanded_size(value: object, counts: dict[int, int], depth: int = 0) -> int:
    items: Iterable[object]
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        items = value
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        items = value.ravel().tolist()
    else:
        return 1
    if id(value) not in counts:
        if depth > 2 * _MAX_DEPTH:
            raise UnsafePickleError(f"containers are nested more than {2 * _MAX_DEPTH} deep")
        counts[id(value)] = 1 + sum(_expanded_size(item, counts, depth + 1) for item in items)
    return counts[id(value)]


class _Bounded:
    """Wraps a file to refuse reads beyond its size, for which Python would allocate memory first."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._file = file

    def read(self, count: int) -> bytes:
        if count > self.size:
            raise EOFError
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    def readinto(self, buffer: bytearray) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        return count


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, whose memo is a dict; the C one allocates its memo up to any index that a file names.

    The speed is similar, since a feature file consists almost entirely of arrays, whose bytes are read in one call.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(count)))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def _decode_string(self, value: bytes) -> str:
        return ByteString(value, "latin1")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise UnsafePickleError(f"it names {module}.{name}") from None


def load(path: Path) -> Any:
    """Reads a pickle of numpy arrays and plain containers.

    Raises:
        UnsafePickleError: if it contains anything else; nothing in it has been executed.
        pickle.UnpicklingError: if it is not a pickle, or is truncated or damaged.
        OSError: if it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            bounded = _Bounded(file)
            content = _unwrapped(_Unpickler(bounded, encoding="latin1").load(), {})
            _check_expanded(content, max(_LEAST_EXPANDED, 4 * bounded.size))
            return content
        except pickle.UnpicklingError:
            raise
        except (OSError, KeyboardInterrupt):
            raise
        except MemoryError:
            raise pickle.UnpicklingError("it declares more data than fits in memory") from None
        except EOFError:
            raise pickle.UnpicklingError("it is empty or truncated") from None
        except Exception as error:  # a damaged pickle can raise any exception
            raise pickle.UnpicklingError(f"it is damaged or not a pickle ({type(error).__name__}: {error})") from None
