"""The arguments of the functions that solve one problem per row: checked, broadcast, with the rows' dimension last."""

from typing import NamedTuple

import torch
from torch import Tensor

from multifuse._internal import checks
from multifuse.ops.portable import compute_dtype

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Rows(NamedTuple):
    """``values`` (..., T); ``total`` (...,), in the compute type; ``mask`` (..., T) bool, or ``None``: all real."""

    values: Tensor
    total: Tensor
    mask: Tensor | None


def checked_rows(
    values: Tensor, total: Tensor | float, mask: Tensor | None, dim: int, names: tuple[str, str] = ("z", "budget")
) -> Rows:
    """Returns the rows along ``dim``, with one total each; ``names`` are those of values and total in error messages.

    A total has the shape of ``values`` without ``dim``, or with size 1 there, or broadcasts to the first of these.
    """
    name, total_name = names
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(values).__name__}")
    if values.dtype not in _FLOATING:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {values.dtype}")
    if values.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension (..., T), got a scalar tensor")
    position = _position(name, values, dim)
    total = _per_row(total_name, total, values, position)
    if mask is not None:
        if mask.device != values.device:
            raise ValueError(f"mask must be on {name}'s device {values.device}, is on {mask.device}")
        mask = checks.bool_mask("mask", mask)
        if mask.ndim != values.ndim or mask.shape != values.shape:
            mask = _broadcast("mask", mask, values.shape, (values.shape,))
    if position == values.ndim - 1:
        return Rows(values, total, mask)
    return Rows(values.movedim(position, -1), total, None if mask is None else mask.movedim(position, -1))


def moved_back(result: Tensor, dim: int) -> Tensor:
    """Returns (..., T) with T at ``dim``; no view is made where it is there already."""
    return result if dim in (-1, result.ndim - 1) else result.movedim(-1, dim)


def _position(name: str, values: Tensor, dim: int) -> int:
    if not isinstance(dim, int) or not -values.ndim <= dim < values.ndim:
        shape = tuple(values.shape)
        raise ValueError(
            f"dim must be an integer in [{-values.ndim}, {values.ndim - 1}] for {name} of shape {shape}, got {dim!r}"
        )
    return dim % values.ndim


def _per_row(name: str, total: Tensor | float, values: Tensor, position: int) -> Tensor:
    """Returns one total per row, in the shape of ``values`` without the dimension at ``position``."""
    before, after = values.shape[:position], values.shape[position + 1 :]
    shape = before + after
    dtype = compute_dtype(values.dtype)
    if not isinstance(total, Tensor):
        return torch.full(shape, _number(name, total), dtype=dtype, device=values.device)
    if total.is_complex():
        raise ValueError(f"{name} must be real, got {total.dtype}")
    if total.dtype != dtype or total.device != values.device:
        total = total.to(device=values.device, dtype=dtype)
    # First the number of dimensions: a compiler would otherwise compare sizes that have nothing to do with each other.
    if total.ndim == len(shape) and total.shape == shape:
        return total
    has_dim = total.ndim == values.ndim
    kept = torch.Size((*before, 1, *after))
    total = _broadcast(name, total, kept if has_dim else shape, (shape, kept))
    return total.squeeze(position) if has_dim else total


def _number(name: str, total: object) -> float:
    try:
        return float(total)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number or a tensor, got {total!r:.80}") from None


def _broadcast(name: str, tensor: Tensor, shape: torch.Size, accepted: tuple[torch.Size, ...]) -> Tensor:
    try:
        return tensor.expand(shape)
    except RuntimeError:
        shapes = " or ".join(str(tuple(shape)) for shape in accepted)
        raise ValueError(f"{name} of shape {tuple(tensor.shape)} does not broadcast to {shapes}") from None
