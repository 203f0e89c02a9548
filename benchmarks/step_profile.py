"""Profiles a training step of CLCR, or a part of it: the fraction of its time that each of torch's operators takes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.step_speed import training_step

STEPS = 5
LISTED = 12


@dataclass(frozen=True)
class Operator:
    """An operator of torch, its fraction of a step's time without the operators it calls, and its calls per step."""

    name: str
    share: float
    calls: float


def measure(step: Callable[[], object]) -> list[Operator]:
    """Returns the operators that take most of the time."""
    step()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as measured:
        for _ in range(STEPS):
            step()
    events = measured.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    largest = sorted(events, key=lambda event: event.self_cpu_time_total, reverse=True)[:LISTED]
    return [Operator(event.key, event.self_cpu_time_total / total, event.count / STEPS) for event in largest]


if __name__ == "__main__":
    torch.set_num_threads(2)
    for operator in measure(training_step()):
        print(f"{100 * operator.share:5.1f} %  {operator.calls:6.1f} calls  {operator.name}")
