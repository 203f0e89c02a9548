"""Argument checks of the public border: every message names the argument and shows the offending value."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """One modality's checked tokens: ``values`` (B, T, d), zero at padding; ``mask`` (B, T), ``None``: all are real."""

    values: Tensor
    mask: Tensor | None


def positive_integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return value


def in_range(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value!r}")
    return float(value)


def grid(name: str, value: Sequence[int | None]) -> tuple[int | None, int | None]:
    """Checks rows and columns, either of them ``None``."""
    if len(value) != 2 or not all(size is None or (type(size) is int and size >= 1) for size in value):
        raise ValueError(f"{name} must be (rows, columns), each an integer >= 1 or None, got {value!r}")
    rows, columns = value
    return rows, columns


def modality_names(modalities: Iterable[str]) -> tuple[str, ...]:
    if isinstance(modalities, str):
        raise ValueError(f"modalities must be a sequence of names, got the single string {modalities!r}")
    names = tuple(modalities)
    if not names:
        raise ValueError("modalities must name at least one modality, got none")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"modalities must be Python identifiers, got {name!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"modalities must be distinct, got {names}")
    return names


def subspace_ranks(dim: int, shared_rank: int, private_rank: int) -> None:
    positive_integer("dim", dim)
    positive_integer("shared_rank", shared_rank)
    positive_integer("private_rank", private_rank)
    if shared_rank + private_rank > dim:
        raise ValueError(f"shared_rank + private_rank must not exceed dim, got {shared_rank} + {private_rank} > {dim}")


def known_modalities(argument: str, given: Iterable[str], modalities: tuple[str, ...]) -> None:
    unknown = [name for name in given if name not in modalities]
    if unknown:
        raise ValueError(f"{argument} has modalities {unknown}; this module knows {list(modalities)}")


def rates(argument: str, rate: float | Mapping[str, float], modalities: tuple[str, ...]) -> dict[str, float]:
    """A rate for every modality: one for all of them, or by name, 0 for one that is not named."""
    if isinstance(rate, Mapping):
        known_modalities(argument, rate, modalities)
        named = {name: in_range(f"{argument}[{name!r}]", value, 0.0, 1.0) for name, value in rate.items()}
        return {**dict.fromkeys(modalities, 0.0), **named}
    return dict.fromkeys(modalities, in_range(argument, rate, 0.0, 1.0))


def token_mask(argument: str, mask: Tensor, batch: int, length: int) -> Tensor:
    if mask.dtype != torch.bool:
        raise ValueError(f"{argument} must be a bool tensor (True = real token), got {mask.dtype}")
    if mask.shape != (batch, length):
        raise ValueError(f"{argument} must have shape {(batch, length)}, got {tuple(mask.shape)}")
    return mask


def finite_tokens(argument: str, inputs: Mapping[str, object], mask: Mapping[str, Tensor | None]) -> None:
    """Checks that no real token of a feature sequence (B, T, D) holds NaN or infinity."""
    for name, values in inputs.items():
        if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim != 3:
            continue
        wrong = ~values.isfinite().all(dim=-1)
        real = mask.get(name)
        wrong = wrong if real is None else wrong & real
        if wrong.any():
            sample, token = wrong.nonzero()[0].tolist()
            worst = values[sample, token][~values[sample, token].isfinite()][0]
            raise ValueError(
                f"{argument}[{name!r}] must be finite at real tokens, holds {float(worst.detach())} "
                f"at sample {sample}, token {token}; {int(wrong.sum())} tokens in all"
            )


def token_shapes(
    argument: str,
    tokens: Mapping[str, Tensor | None],
    mask: Mapping[str, Tensor | None] | None,
    modalities: tuple[str, ...],
    dim: int,
) -> None:
    """Checks the names, shapes and types of a batch of token tensors and of their masks."""
    mask = {} if mask is None else mask
    known_modalities(argument, tokens, modalities)
    known_modalities("mask", mask, modalities)
    batch: int | None = None
    for name in modalities:
        values = tokens.get(name)
        if values is None:
            continue
        if values.ndim != 3 or values.shape[-1] != dim:
            raise ValueError(f"{argument}[{name!r}] must have shape (batch, tokens, {dim}), got {tuple(values.shape)}")
        if not values.is_floating_point():
            raise ValueError(f"{argument}[{name!r}] must be floating point, got {values.dtype}")
        batch = values.shape[0] if batch is None else batch
        if values.shape[0] != batch:
            raise ValueError(f"{argument}[{name!r}] has batch size {values.shape[0]}, the modalities before it {batch}")
        real = mask.get(name)
        if real is not None:
            token_mask(f"mask[{name!r}]", real, batch, values.shape[1])
    if batch is None:
        raise ValueError(f"{argument} must hold at least one of the modalities {list(modalities)}, got none")


def token_mapping(
    tokens: Mapping[str, Tensor | None],
    mask: Mapping[str, Tensor | None] | None,
    modalities: tuple[str, ...],
    dim: int,
) -> dict[str, Tokens]:
    """Checks a batch of token tensors and returns the present modalities, in the constructor's order."""
    token_shapes("tokens", tokens, mask, modalities, dim)
    present: dict[str, Tokens] = {}
    for name in modalities:
        values, real = tokens.get(name), None if mask is None else mask.get(name)
        if values is not None:
            if real is not None:
                values = values.masked_fill(~real.unsqueeze(-1), 0.0)
            present[name] = Tokens(values, real)
    return present
