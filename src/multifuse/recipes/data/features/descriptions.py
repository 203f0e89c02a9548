"""Describes in a few words what a file holds, for error messages about a layout that cannot be read."""

import textwrap
from typing import Any

import numpy as np

_MOST_KEYS, _LONGEST_NAME, _MOST_ITEMS = 8, 40, 4


def described(value: object, depth: int = 2) -> str:
    """Returns the type and shape of a value; containers are opened to ``depth`` levels."""
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}{_example(value)}"
    if isinstance(value, dict):
        return f"a dict with {_keys(value, depth)}" if value else "an empty dict"
    if isinstance(value, list | tuple):
        kind = type(value).__name__
        if not value:
            return f"an empty {kind}"
        if depth < 1:
            return f"a {kind} of {len(value)}"
        if isinstance(value, tuple) and len(value) <= _MOST_ITEMS:
            return f"a tuple of ({', '.join(described(item, depth - 1) for item in value)})"
        return f"a {kind} of {len(value)}, the first {described(value[0], depth - 1)}"
    if value is None or isinstance(value, bool | int | float | str | bytes | np.generic):
        return quoted(value)
    return f"a {type(value).__name__}"


def quoted(value: object) -> str:
    """Returns a value as Python writes it, shortened: a file may put names and numbers of any length in it."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an integer of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 4] + " ..."


def as_text(value: object) -> str:
    """Returns a name or a part of one as text, whether a file holds it as text, in bytes or as a number."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else quoted(value)


def listed(names: Any) -> str:
    """Returns names, separated by commas and shortened, for a line that lists them."""
    return textwrap.shorten(", ".join(map(str, names)), 300, placeholder=" ...")


def _keys(content: dict[Any, Any], depth: int) -> str:
    shown = list(content.items())[:_MOST_KEYS]
    if depth < 1:
        text = ", ".join(quoted(key) for key, _ in shown)
    else:
        text = ", ".join(f"{quoted(key)}: {described(value, depth - 1)}" for key, value in shown)
    return text if len(shown) == len(content) else f"{text} and {len(content) - len(shown)} more keys"


def _example(array: np.ndarray[Any, Any]) -> str:
    """Returns an example of what an array of strings or objects holds."""
    if array.dtype.kind in "biufc" or array.size == 0:
        return ""
    first = array.ravel()[0]
    return f", the first {described(first, 0)}"
