"""Compares a program with the module that it was exported from, at several sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Check:
    """One batch on which a program was compared with the original."""

    sizes: dict[str, int]
    difference: float
    """The largest absolute difference of any output, divided by the largest value of that output where that is > 1."""


def sizes_to_check(example: Mapping[str, int], allowed: Mapping[str, tuple[int, int | None]]) -> list[dict[str, int]]:
    """Returns sizes that a program is compared at: the example's, all the smallest, and two larger batches."""
    wanted = [
        dict(example),
        dict.fromkeys(example, 1),
        {name: 2 * size + 1 for name, size in example.items()},
        {name: size + 13 if index % 2 else max(size - 2, 1) for index, (name, size) in enumerate(example.items())},
    ]
    return [{name: _within(size, *allowed[name]) for name, size in sizes.items()} for sizes in wanted]


def _within(size: int, low: int, high: int | None) -> int:
    return max(size, low) if high is None else min(max(size, low), high)


def difference(ours: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Returns the largest difference of outputs that are called alike, as `Check` has it; infinite if they misfit."""
    if list(ours) != list(expected):
        return float("inf")
    return max((_difference(ours[name].cpu(), expected[name].cpu()) for name in expected), default=0.0)


def _difference(ours: Tensor, expected: Tensor) -> float:
    if ours.shape != expected.shape or ours.dtype != expected.dtype:
        return float("inf")
    if not expected.numel():
        return 0.0
    ours, expected = ours.double(), expected.double()
    # NaN must meet NaN; what is equal, as infinities may be, differs by 0.
    apart = torch.where((ours == expected) | (ours.isnan() & expected.isnan()), 0.0, (ours - expected).abs())
    scale = expected.nan_to_num(0.0, 0.0, 0.0).abs().max().clamp(min=1.0)
    return float((apart / scale).nan_to_num(float("inf")).max())
