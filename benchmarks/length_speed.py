"""Measures time and peak memory by length, forward and backward, in a process per length (Linux).

python -m benchmarks.length_speed prints the memory of the whole model in training: three modalities of T tokens each,
one sample, the widths of MOSI, sinusoidal positions; as it is, with gradient checkpointing, and on the path without
compiled kernels. Option: --threads N. `make bench` measures IntraCED by itself.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LENGTHS = (64, 256, 1024, 4096, 8192)
LENGTHS_OF_MODEL = (1024, 2048, 4096, 8192)
MODELS = {
    "model": "the model",
    "checkpointed": "with gradient checkpointing",
    "portable": "without compiled kernels",
}


@dataclass(frozen=True)
class Length:
    """Figures for one sample with ``tokens`` tokens of each modality; memory is the peak that a call adds."""

    tokens: int
    seconds: float
    mebibytes: float


def measure(threads: int, what: str = "exchange", lengths: Sequence[int] = LENGTHS) -> Iterator[Length]:
    """Yields the figures of every length, of IntraCED with two modalities or of one of `MODELS`."""
    environment = {**os.environ, "MULTIFUSE_FORCE_FALLBACK": "1"} if what == "portable" else None
    for tokens in lengths:
        command = [sys.executable, "-m", "benchmarks.length_speed", "--of", what, str(tokens)]
        command += ["--threads", str(threads)]
        process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        yield Length(**json.loads(process.stdout))


def table(threads: int) -> Iterator[str]:
    """Yields the lines of the table of the whole model's memory, in Markdown."""
    yield f"| T of each modality | {' | '.join(f'{title}: MiB | KiB per token' for title in MODELS.values())} |"
    yield "|---" * (1 + 2 * len(MODELS)) + "|"
    for tokens in LENGTHS_OF_MODEL:
        measured = [next(measure(threads, what, [tokens])).mebibytes for what in MODELS]
        cells = (f"{mebibytes:.0f} | {1024 * mebibytes / (3 * tokens):.1f}" for mebibytes in measured)
        yield f"| {tokens} | {' | '.join(cells)} |"


def _measure_here(what: str, tokens: int, threads: int) -> Length:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    call = _exchange() if what == "exchange" else _model(what == "checkpointed")
    call(8)
    start = time.perf_counter()
    memory = added_at_peak(lambda: call(tokens))
    if what == "exchange":  # again, with memory that the first call has freed; that of the model is not timed
        start = time.perf_counter()
        call(tokens)
    return Length(tokens, time.perf_counter() - start, memory)


def _exchange() -> Callable[[int], object]:
    import torch

    from multifuse import IntraCED

    layer = IntraCED(128, ("one", "other"), shared_rank=48, private_rank=32)

    def call(length: int) -> None:
        inputs: dict[str, Any] = {name: torch.randn(1, length, 128, requires_grad=True) for name in layer.modalities}
        torch.stack([stream.sum() for stream in layer(inputs).tokens.values()]).sum().backward()

    return call


def _model(checkpointed: bool) -> Callable[[int], object]:
    import torch

    from benchmarks.step_speed import WIDTHS, built, loss_of

    model: Any = built("clcr", positions="sinusoidal")
    if checkpointed:
        newer, older = "activation_checkpointing_enable", "gradient_checkpointing_enable"  # by transformers' version
        getattr(model, newer if hasattr(model, newer) else older)()

    def call(length: int) -> None:
        inputs = {name: torch.randn(1, length, width) for name, width in WIDTHS.items()}
        mask = {name: (torch.arange(length) < 0.9 * length).unsqueeze(0) for name in WIDTHS}
        loss_of(model, inputs, torch.ones(1), mask).backward()

    return call


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=int, nargs="?", help="only print the figures of this length, as JSON")
    parser.add_argument("--of", choices=["exchange", *MODELS], default="model", help="what is measured at this length")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.tokens is not None:
        print(json.dumps(asdict(_measure_here(args.of, args.tokens, args.threads))))
        return
    for line in table(args.threads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
