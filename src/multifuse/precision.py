"""Switching autocast off, on every kind of device."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast leaves types alone; devices without autocast (meta) need none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    context: AbstractContextManager[object] = torch.autocast(device.type, enabled=False)
    return context
