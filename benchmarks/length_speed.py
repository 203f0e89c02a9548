"""IntraCED as sequences grow: time and peak memory of a forward and backward, a process for each length (Linux)."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LENGTHS = (64, 256, 1024, 4096, 8192)


@dataclass(frozen=True)
class Length:
    """One sample of two modalities of ``tokens`` tokens each; what a call adds to the process's memory, at its peak."""

    tokens: int
    seconds: float
    mebibytes: float


def measure(threads: int) -> Iterator[Length]:
    """Yields every length's figures."""
    for tokens in LENGTHS:
        command = [sys.executable, "-m", "benchmarks.length_speed", str(tokens), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield Length(**json.loads(done.stdout))


def _measure_here(tokens: int, threads: int) -> Length:
    import torch

    from multifuse import IntraCED

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layer = IntraCED(128, ("one", "other"), 48, 32)

    def call(length: int) -> None:
        inputs: dict[str, Any] = {name: torch.randn(1, length, 128, requires_grad=True) for name in layer.modalities}
        torch.stack([stream.sum() for stream in layer(inputs).tokens.values()]).sum().backward()

    call(8)
    before = _mebibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    call(tokens)
    memory = _mebibytes("VmHWM") - before
    start = time.perf_counter()
    call(tokens)
    return Length(tokens, time.perf_counter() - start, memory)


def _mebibytes(field: str) -> float:
    """A figure of this process, as Linux keeps it."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, field
    return int(found[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_here(int(sys.argv[1]), int(sys.argv[2])))))
