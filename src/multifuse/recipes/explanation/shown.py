"""The samples that are shown with alpha of their tokens, and the rule by which they are chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Alphas = tuple[dict[str, NDArray[np.float32]], ...]
"""By level and modality, alpha of a sample's real tokens (T,)."""


@dataclass(frozen=True)
class ShownSample:
    """One sample."""

    id: str
    rule: str
    """Why it was chosen, such as "lowest prediction"."""
    prediction: str
    label: str
    sentence: str | None
    """What is said in it, if the data have it."""
    tokens: tuple[str, ...] | None
    """The tokens of its text, if the model reads token ids."""
    alphas: Alphas


def chosen(scores: NDArray[np.floating[Any]], what: str) -> list[tuple[int, str]]:
    """Returns the index of the sample with the lowest, the middle and the highest score, each sample once."""
    order = np.argsort(scores, kind="stable")
    places = {"lowest": 0, "middle": (len(order) - 1) // 2, "highest": len(order) - 1}
    rules: dict[int, list[str]] = {}
    for rule, place in places.items():
        rules.setdefault(int(order[place]), []).append(rule)
    return [(index, f"{' and '.join(names)} {what}") for index, names in rules.items()]


def segments_text(classes: ArrayLike, names: Sequence[str]) -> str:
    """Names the class of a sample, or those of its segments in order; -100 is no label."""
    text = ["no label" if index == -100 else names[index] for index in np.atleast_1d(np.asarray(classes))]
    runs = [(name, len(list(run))) for name, run in groupby(text)]
    return ", ".join(name if count == 1 else f"{name} x {count}" for name, count in runs)
