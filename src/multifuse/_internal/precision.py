"""The precision in which statistics and bases are computed."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def has_autocast(device_type: str) -> bool:
    """Tells whether a kind of device has autocast; "meta" has none."""
    return torch.amp.is_autocast_available(device_type)


# A compiler asks once, and writes the answer into its graph: that of torch 2.11 cannot trace the question. This is what
# torch.compiler.assume_constant_result does; calling that would import the compiler with this library.
has_autocast._dynamo_marked_constant = True  # type: ignore[attr-defined]


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context without autocast; devices that have none need none."""
    if not has_autocast(device.type):
        return nullcontext()
    context: AbstractContextManager[object] = torch.autocast(device.type, enabled=False)
    return context


def at_least_float32(values: Tensor) -> Tensor:
    """Converts half types to float32, and leaves the others unchanged."""
    return values.float() if values.dtype.itemsize < 4 else values


def precise(values: Tensor) -> Tensor:
    """Converts to float64 where the device has it."""
    return values if values.device.type == "mps" else values.double()
