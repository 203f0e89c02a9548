"""The figures of one GPU, as JSON and as a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.gpu_kernels import Kernels
from benchmarks.reports import markdown_table
from benchmarks.timing import Timing


@dataclass(frozen=True)
class ModelOnGpu:
    """Seconds of a model's training step by the way it is run, and of its inference; kernels and memory of a step."""

    model: str
    steps: dict[str, Timing]
    inference: dict[str, Timing]
    operators: int
    """Counted on a CPU, by `benchmarks.launches`; 0: not counted."""
    kernels: Kernels
    """Those of an eager step."""
    mebibytes: float
    """What an eager step adds to weights and batch at its peak: gradients, momentum, and what is kept for backward."""


@dataclass(frozen=True)
class PartOnGpu:
    """A part of CLCR's step, recorded by itself."""

    share: float
    """The fraction of the recorded step's time."""
    kernels: Kernels


@dataclass(frozen=True)
class OpOnGpu:
    """The projection, forward and backward, beside a copy."""

    size: tuple[int, int]
    seconds: Timing
    bytes_moved: int
    copy_bandwidth: float
    """Bytes per second, read and written."""

    @property
    def share(self) -> float:
        """The bandwidth over the bytes that it must move, in fractions of a copy's."""
        return self.bytes_moved / self.seconds.median / self.copy_bandwidth


@dataclass(frozen=True)
class GpuReport:
    """All figures of one GPU."""

    machine: dict[str, Any]
    batch: int
    models: list[ModelOnGpu]
    parts: dict[str, PartOnGpu]
    op: OpOnGpu
    lengths: dict[int, float]
    """MiB that IntraCED adds at its peak in training, by the tokens of each of two modalities."""

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "share_of_copy_bandwidth": self.op.share}, indent=1) + "\n"

    def as_table(self) -> str:
        lines = [
            f"# Speed on {self.machine['gpu']}",
            "",
            ", ".join(f"{name} {value}" for name, value in self.machine.items()) + ".",
            "",
            f"A training step (batch {self.batch}, three modalities of up to 50 tokens), and inference as a CUDA",
            "graph; median milliseconds of calls made in turns:",
            "",
            _models(self.models),
            "Milliseconds of the GPU in an eager step, by what its kernels compute:",
            "",
            _kinds(self.models),
            "Parts of CLCR's step without padding, each recorded as a CUDA graph, in fractions of the recorded step:",
            "",
            *(f"- {name}: {part.share:.3f}, {_described(part.kernels)}" for name, part in self.parts.items()),
            "",
            f"The projection of {self.op.size}, forward and backward: {1e3 * self.op.seconds.median:.3f} ms for",
            f"{self.op.bytes_moved / 2**20:.0f} MiB, {100 * self.op.share:.0f} % of the bandwidth of a copy",
            f"({self.op.copy_bandwidth / 1e12:.2f} TB/s, target 80 %).",
            "",
            "IntraCED, two modalities of T tokens, one sample, forward + backward: "
            + ", ".join(f"{mebibytes:.0f} MiB at T = {tokens}" for tokens, mebibytes in self.lengths.items())
            + ".",
        ]
        return "\n".join(lines) + "\n"


def _models(models: Sequence[ModelOnGpu]) -> str:
    ways = list(dict.fromkeys(way for model in models for way in model.steps))
    sizes = list(dict.fromkeys(size for model in models for size in model.inference))
    rows = []
    for model in models:
        cells = [_milliseconds(model.steps.get(way)) for way in ways]
        cells += [_milliseconds(model.inference.get(size)) for size in sizes]
        cells += [str(model.operators or ""), str(model.kernels.count), f"{model.mebibytes:.0f}"]
        rows.append([model.model, *cells])
    return markdown_table(["model", *ways, *sizes, "operators", "kernels", "MiB"], rows)


def _kinds(models: Sequence[ModelOnGpu]) -> str:
    times = {model.model: model.kernels.milliseconds for model in models}
    found = dict.fromkeys(kind for of_model in times.values() for kind in of_model)
    kinds = sorted(found, key=lambda kind: -sum(of_model.get(kind, 0.0) for of_model in times.values()))
    rows = []
    for model in models:
        cells = (f"{times[model.model][kind]:.3f}" if kind in times[model.model] else "" for kind in kinds)
        rows.append([model.model, f"{model.kernels.total:.3f}", *cells])
    return markdown_table(["model", "all", *kinds], rows)


def _described(kernels: Kernels) -> str:
    kinds = ", ".join(f"{kind} {milliseconds:.3f}" for kind, milliseconds in kernels.milliseconds.items())
    return f"{kernels.count} kernels ({kinds} ms)"


def _milliseconds(timing: Timing | None) -> str:
    return "" if timing is None else f"{1e3 * timing.median:.2f}"
