"""Measures time and peak memory of IntraCED, forward and backward, by length, in a process per length (Linux)."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LENGTHS = (64, 256, 1024, 4096, 8192)


@dataclass(frozen=True)
class Length:
    """Figures for one sample of two modalities with ``tokens`` tokens each; memory is the peak that a call adds."""

    tokens: int
    seconds: float
    mebibytes: float


def measure(threads: int) -> Iterator[Length]:
    """Yields the figures of every length."""
    for tokens in LENGTHS:
        command = [sys.executable, "-m", "benchmarks.length_speed", str(tokens), str(threads)]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        yield Length(**json.loads(process.stdout))


def _measure_here(tokens: int, threads: int) -> Length:
    import torch

    from multifuse import IntraCED

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layer = IntraCED(128, ("one", "other"), shared_rank=48, private_rank=32)

    def call(length: int) -> None:
        inputs: dict[str, Any] = {name: torch.randn(1, length, 128, requires_grad=True) for name in layer.modalities}
        torch.stack([stream.sum() for stream in layer(inputs).tokens.values()]).sum().backward()

    call(8)
    memory = added_at_peak(lambda: call(tokens))
    start = time.perf_counter()
    call(tokens)
    return Length(tokens, time.perf_counter() - start, memory)


def added_at_peak(function: Callable[[], object]) -> float:
    """Returns the MiB that a call adds to this process at its peak."""
    before = _mebibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    function()
    return _mebibytes("VmHWM") - before


def _mebibytes(field: str) -> float:
    """Returns a memory figure that Linux keeps of this process."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match, field
    return int(match[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_here(int(sys.argv[1]), int(sys.argv[2])))))
