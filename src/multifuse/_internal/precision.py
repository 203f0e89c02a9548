"""The precision in which statistics and bases are computed."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context without autocast; devices that have no autocast (meta) need none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    context: AbstractContextManager[object] = torch.autocast(device.type, enabled=False)
    return context


def at_least_float32(values: Tensor) -> Tensor:
    """Converts half types to float32, and leaves the others unchanged."""
    return values.float() if values.dtype.itemsize < 4 else values


def precise(values: Tensor) -> Tensor:
    """Converts to float64 where the device has it."""
    return values if values.device.type == "mps" else values.double()
