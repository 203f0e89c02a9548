"""The precision that statistics and bases are computed in."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast leaves types alone; devices without autocast (meta) need none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    context: AbstractContextManager[object] = torch.autocast(device.type, enabled=False)
    return context


def at_least_float32(values: Tensor) -> Tensor:
    """Half types in float32, the others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
