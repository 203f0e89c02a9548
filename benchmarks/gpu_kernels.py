"""What a call makes a GPU do: the kernels that it launches, and their time by kind."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_KINDS = {
    "attention": "fmha|sdpa|flash",
    "the projection": "project_in_registers|project_from_memory|backward_in_registers|backward_from_memory",
    "factorisations": "potrf|trsm|syrk|trtri|pointerarray",
    "convolutions": "conv|cudnn|fprop|dgrad|wgrad|nchwtonhwc|nhwctonchw",
    "matrix products": "gemm|gemv|nvjet|cutlass|splitk",
    "copies and fills": "memcpy|memset|copy|catarray|fill",
    "sums and norms": "reduce|layer_norm|softmax|gammabeta",
}
"""The first kind whose pattern a kernel's name contains is the kernel's; all others are elementwise."""
ELEMENTWISE = "elementwise"


@dataclass(frozen=True)
class Kernels:
    """What a call launches, copies and fills included: how many, and milliseconds of the GPU by kind."""

    count: int
    milliseconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.milliseconds.values())


def kernels_of(call: Callable[[], object]) -> Kernels:
    """Profiles a call after one that is not counted."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
        call()
        torch.cuda.synchronize()
    events = [event for event in profiled.events() or () if event.device_type == DeviceType.CUDA]
    return by_kind((event.name, event.device_time) for event in events if not event.is_user_annotation)


def by_kind(kernels: Iterable[tuple[str, float]]) -> Kernels:
    """Adds up kernels, given their names and microseconds."""
    times: dict[str, list[float]] = {}
    for name, microseconds in kernels:
        times.setdefault(kind_of(name), []).append(microseconds)
    total = {kind: sum(of_kind) / 1000 for kind, of_kind in times.items()}
    largest_first = dict(sorted(total.items(), key=lambda item: -item[1]))
    return Kernels(sum(map(len, times.values())), largest_first)


def kind_of(kernel: str) -> str:
    """Returns what a kernel computes, by its name."""
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, kernel.lower())), ELEMENTWISE)
