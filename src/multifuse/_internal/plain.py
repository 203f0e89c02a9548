"""Python's own numbers and lists in place of numpy's, which no JSON file can hold."""

from dataclasses import fields
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Returns a value with numpy's numbers and arrays replaced at any depth of dicts, lists and tuples."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    return value


def make_fields_plain(data: Any) -> None:
    """Replaces numpy's numbers in the fields of a dataclass, also of a frozen one, from its ``__post_init__``."""
    for field in fields(data):
        object.__setattr__(data, field.name, plain(getattr(data, field.name)))
