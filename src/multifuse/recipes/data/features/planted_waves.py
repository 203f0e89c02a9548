"""The three levels at which a value is planted in a sequence: one token, the order of a few tokens, the whole clip.

An event adds a wave along one direction of its modality's features: ``amplitude * (carrier + value * pattern)``, where

- ``token``: the pattern is 1 at a single token;
- ``order``: the pattern is a swing of four tokens up and four down. It sums to zero, so that only the order of the
  tokens shows the value;
- ``clip``: the carrier alternates between 1 and -1 over the whole sequence, with a random sign. The pattern makes it
  stronger in one half and weaker in the other, so that only the balance between the halves shows the value.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Level = Literal["token", "order", "clip"]
LEVELS: tuple[Level, ...] = get_args(Level)
SHORTEST = 10
"""The least number of tokens with room for an event of every level around the middle."""
_SWING = np.repeat([1.0, -1.0], 4)
SPANS: dict[Level, int] = {"token": 1, "order": len(_SWING)}
"""The number of tokens of the events that have a time."""


def first_and_last_start(level: Level, length: int) -> tuple[int, int]:
    """Returns the first and the last token at which an event with a time may start."""
    return (1, length - 2) if level == "token" else (0, length - len(_SWING) - 1)


def pattern(level: Level, start: int, length: int) -> NDArray[np.float64]:
    """Returns what the value of an event scales, (length,)."""
    if level == "clip":
        steps = np.arange(length)
        return carrier(level, length) * np.cos(np.pi * steps / max(length - 1, 1))
    values = np.zeros(length)
    values[start : start + SPANS[level]] = 1 if level == "token" else _SWING
    return values


def carrier(level: Level, length: int) -> NDArray[np.float64]:
    """Returns what an event contains whatever its value is, (length,); it has no part in the pattern."""
    return np.where(np.arange(length) % 2, 1.0, -1.0) if level == "clip" else np.zeros(length)
