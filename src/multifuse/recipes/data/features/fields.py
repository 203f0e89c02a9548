"""Checks and converts the fields of a split: numbers, whole numbers and strings, naming the sample at fault."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.features.descriptions import described, quoted
from multifuse.recipes.data.features.safe_pickle import ByteString

_SHAPES = {1: "N,", 3: "N, T, D"}
_MISSING_WORDS = ("nan", "<NA>", "NaT")
"""What numpy and pandas write for a missing value among strings."""


class MMSAFileError(ValueError):
    """Raised when a feature file cannot be used; the message is one line that names the file and the problem."""


def numbers(name: str, value: object, ndim: int, count: int | None = None) -> NDArray[Any]:
    """Returns a field as an array of numbers of ``ndim`` dimensions, in its stored element type.

    Raises:
        MMSAFileError: if it is missing, not numbers, or of another shape.
    """
    if value is None:
        raise MMSAFileError(f"{name} is missing")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError):  # items of different shapes
        raise MMSAFileError(f"{name} must be an array of numbers{_got(value)}") from None
    if array.dtype.kind not in "biuf":
        raise MMSAFileError(f"{name} must be an array of numbers{_got(value if array.ndim == 0 else array)}")
    if array.ndim != ndim or (count is not None and len(array) != count) or 0 in array.shape[1:]:
        with_count = "" if count is None else f" with N = {count}"
        raise MMSAFileError(f"{name} must have shape ({_SHAPES[ndim]}){with_count}, got {array.shape}")
    return array


def _got(value: object) -> str:
    """Describes what stands in the place of numbers, and says what to do about arrays of different lengths."""
    items = list(value.flat) if isinstance(value, np.ndarray) and value.dtype == object else value
    if isinstance(items, list | tuple) and len(items) > 1 and all(isinstance(item, np.ndarray) for item in items):
        return f", got {len(items)} arrays, of shapes {items[0].shape}, {items[1].shape} ...; pad them to one length"
    if isinstance(value, np.ndarray) and value.ndim == 1:
        row = next((row for row, item in enumerate(value) if not _is_number(item)), None)
        if row is not None:
            return f", got {quoted(value[row])} at index {row}"
    return f", got {described(value, 1)}"


def _is_number(item: object) -> bool:
    return isinstance(item, bool | int | float | np.number | np.bool_)


def reals(name: str, value: object, ndim: int, ids: Sequence[str]) -> NDArray[np.float32]:
    """Returns a field of real numbers as float32; values that are not finite stay as they are.

    Raises:
        MMSAFileError: as `numbers`, or if a finite value is beyond the range of float32.
    """
    array = numbers(name, value, ndim, len(ids))
    with np.errstate(over="ignore", invalid="ignore"):
        converted: NDArray[np.float32] = array.astype(np.float32)
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        _check(name, array, np.isfinite(array) & ~np.isfinite(converted), ids, "be within the range of float32")
    return converted


def finite_reals(name: str, value: object, ids: Sequence[str]) -> NDArray[np.float32]:
    """Returns one finite real number per sample.

    Raises:
        MMSAFileError: as `reals`, or if a number is not finite.
    """
    array = reals(name, value, 1, ids)
    _check(name, array, ~np.isfinite(array), ids, "be finite")
    return array


def integers(name: str, value: object, ndim: int, ids: Sequence[str]) -> NDArray[np.int64]:
    """Returns a field of whole numbers, which may be stored as floats.

    Raises:
        MMSAFileError: as `numbers`, or if a number is not whole or beyond the range of int64.
    """
    array = numbers(name, value, ndim, len(ids))
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = np.isfinite(array) & (array == np.rint(array))
        _check(name, array, ~whole, ids, "contain whole numbers")
        _check(name, array, np.abs(array) >= 2.0**63, ids, "be below 2**63")
    elif array.dtype.kind == "u":
        _check(name, array, array > np.iinfo(np.int64).max, ids, "be below 2**63")
    return array.astype(np.int64)


def _check(name: str, array: NDArray[Any], wrong: NDArray[np.bool_], ids: Sequence[str], expected: str) -> None:
    """Raises an error that names the first sample with a wrong value, and the value."""
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        more = int(wrong.sum()) - 1
        others = f" (and {more} more)" if more else ""
        raise MMSAFileError(f"{name} must {expected}, got {array[place]} for id {quoted(ids[place[0]])}{others}")


def strings(name: str, value: object, count: int, ids: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns a field of N strings; numbers are accepted as ids, whole numbers also as text, and bytes are UTF-8.

    Args:
        name: the field, for messages.
        value: its content.
        count: N.
        ids: the ids of the samples, for messages; ``None`` while the ids themselves are read.

    Raises:
        MMSAFileError: if a string is missing (``None``, NaN or the word that stands for it), or is something else.
    """
    if value is None:
        raise MMSAFileError(f"{name} is missing")
    if not isinstance(value, np.ndarray | list | tuple) or np.ndim(value) != 1 or len(value) != count:
        raise MMSAFileError(f"{name} must be a list or array of {count} strings, got {described(value, 1)}")
    items = value.tolist() if isinstance(value, np.ndarray) else list(value)
    result = []
    for row, item in enumerate(items):
        where = f"for id {quoted(ids[row])}" if ids else f"at index {row}"
        if ids is None and isinstance(item, float) and not math.isnan(item):
            item = str(item)  # an id is only a name
        result.append(_string(name, item, where))
    return tuple(result)


def decoded(text: str | bytes) -> str:
    """Returns a string as text: bytes, and the strings of Python 2, are decoded as UTF-8.

    Raises:
        UnicodeDecodeError: if they are not UTF-8.
    """
    if isinstance(text, ByteString):
        return text.decoded()
    return text.decode("utf-8") if isinstance(text, bytes) else text


def _string(name: str, item: object, where: str) -> str:
    if item is None or (isinstance(item, float) and math.isnan(item)):
        raise MMSAFileError(f"{name} must contain strings, but the value {where} is missing: it is {item}")
    if isinstance(item, str | bytes):
        try:
            item = decoded(item)
        except UnicodeDecodeError:
            raise MMSAFileError(f"{name} must be encoded as UTF-8, got {quoted(item)} {where}") from None
    if isinstance(item, str):
        if item in _MISSING_WORDS:
            raise MMSAFileError(f"{name} must contain strings, but the value {where} is {item!r}, a missing value")
        return item
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        try:
            return str(int(item))
        except ValueError:  # Python refuses to print an integer of thousands of digits
            pass
    raise MMSAFileError(f"{name} must contain strings, got {described(item, 0)} {where}")
