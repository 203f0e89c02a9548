"""Measures CLCR on a GPU: python -m benchmarks.gpu_speed [--seconds S] [--compile MODEL ...] [--results FOLDER].

At the sizes of MOSI (batch 64, three modalities of up to 50 tokens, SGD with momentum): a training step of CLCR and of
other models in eager mode and recorded as a CUDA graph, in float32, with TensorFloat32 products, and with bfloat16
autocast; those of some models compiled as well; inference; the parts of a step, for a batch without padding; the
kernels that a step launches. Then the projection against the bandwidth of a copy, and the memory of IntraCED by
length. Writes FOLDER/<name of the GPU>.json and a table beside it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import multifuse
from benchmarks.gpu_kernels import kernels_of
from benchmarks.gpu_report import GpuReport, ModelOnGpu, OpOnGpu, PartOnGpu
from benchmarks.launches import launches_of_step, ragged_batch
from benchmarks.models_speed import NAMES
from benchmarks.peers import Transformer
from benchmarks.reports import RESULTS, report_path, write_report
from benchmarks.step_speed import BATCH, WIDTHS, budgets, built, loss_of, projector_and_losses, sgd_step, sum_of
from benchmarks.timing import Timing, in_turns
from multifuse import IntraCED
from multifuse.ops import project_capped_simplex

TRANSFORMER = "a 2-layer transformer"
OP_SIZE = (65536, 512)
LENGTHS = (1024, 4096, 8192, 16384)
COMPILED = ("clcr", TRANSFORMER)
"""The models whose compiled steps are measured by default: compiling takes up to a minute each."""
Step = Callable[[], object]


def measured(seconds: float, compiled: Sequence[str] = COMPILED) -> GpuReport:
    """Runs all measurements on the current GPU."""
    models = list(_models(seconds, compiled))
    return GpuReport(_machine(), BATCH, models, _parts(seconds), _op(seconds), _lengths())


@dataclass(frozen=True)
class Recorded:
    """A call that was recorded as a CUDA graph; it is kept, because the graph reads and writes its tensors."""

    call: Step
    graph: torch.cuda.CUDAGraph

    def __call__(self) -> None:
        self.graph.replay()


def recorded(call: Step) -> Recorded:
    """Records a call, which must not wait for the GPU."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return Recorded(call, graph)


def _models(seconds: float, compiled: Sequence[str]) -> Iterator[ModelOnGpu]:
    """Times each way of all models by turns, so that the load of the machine affects all of them alike."""
    names = [*NAMES, TRANSFORMER]
    steps: dict[str, dict[str, Timing]] = {name: {} for name in names}
    for way, is_compiled, precision in (
        ("eager", False, "float32"),
        ("TF32", False, "tf32"),
        ("bf16", False, "bf16"),
        ("compiled", True, "float32"),
        ("bf16 compiled", True, "bf16"),
    ):
        with _float32_products("high" if precision == "tf32" else "highest"):
            chosen = compiled if is_compiled else names
            calls = {name: _step(name, is_compiled, precision == "bf16") for name in chosen}
            if calls:
                _add(steps, way, _timed(calls, seconds))
                _add(steps, f"{way}, graph", _timed({name: recorded(call) for name, call in calls.items()}, seconds))
        torch.compiler.reset()
    inference: dict[str, dict[str, Timing]] = {name: {} for name in names}
    for size in (1, BATCH):
        predictions = {name: recorded(_inference(name, size)) for name in names}
        _add(inference, f"inference of {size}", _timed(predictions, seconds / 2))
    for name in names:
        step = _step(name, False, False)
        operators = launches_of_step(name) if name in NAMES else 0  # the transformer's are in the table of launches
        memory = _added_at_peak(step)  # of the first steps, in which gradients and momentum are made
        yield ModelOnGpu(NAMES.get(name, name), steps[name], inference[name], operators, kernels_of(step), memory)


@contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _add(measured: dict[str, dict[str, Timing]], way: str, timings: dict[str, Timing]) -> None:
    for name, timing in timings.items():
        measured[name][way] = timing
        print(f"{name}, {way}: {1e3 * timing.median:.3f} ms", file=sys.stderr, flush=True)


def _model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return (Transformer(WIDTHS) if name == TRANSFORMER else built(name)).cuda().train()


def _step(name: str, compiled: bool, half: bool) -> Step:
    """Returns a training step: the gradients of the loss of a model, and SGD with momentum."""
    model = _model(name)
    inputs, labels, mask = tree_map(torch.Tensor.cuda, ragged_batch())
    called: Any = torch.compile(model, fullgraph=True) if compiled else model

    def loss() -> Tensor:
        # A graph keeps no cast weights: they change with every step.
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if half else nullcontext():
            if name == TRANSFORMER:
                return nn.functional.l1_loss(called(inputs)[:, 0].float(), labels)
            return loss_of(called, inputs, labels, mask)

    return sgd_step(model, loss)


def _inference(name: str, size: int) -> Step:
    model = _model(name).eval()
    inputs, _, mask = tree_map(torch.Tensor.cuda, ragged_batch(size))

    @torch.no_grad()
    def predict() -> object:
        return model(inputs) if isinstance(model, Transformer) else model(inputs, mask).logits

    return predict


def _parts(seconds: float) -> dict[str, PartOnGpu]:
    """Returns the shares of parts of CLCR in a step; both are recorded, so that only the GPU's time counts."""
    parts = {
        "StiefelProjector and whitening losses (target 0.05)": projector_and_losses("cuda"),
        "the token budgets": budgets("cuda"),
    }
    calls = {"step": _step("clcr", False, False), **parts}
    times = _timed({name: recorded(call) for name, call in calls.items()}, seconds)
    return {name: PartOnGpu(times[name].median / times["step"].median, kernels_of(parts[name])) for name in parts}


def _op(seconds: float) -> OpOnGpu:
    z = (torch.rand(OP_SIZE, device="cuda") * 1.2 - 0.1).requires_grad_()
    budget = torch.full((OP_SIZE[0],), 0.4 * OP_SIZE[1], device="cuda")
    grad = torch.randn(OP_SIZE, device="cuda")
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    op = recorded(lambda: torch.autograd.grad(project_capped_simplex(z, budget), z, grad))  # the host is slower
    times = _timed({"op": op, "copy": lambda: target.copy_(source)}, seconds)
    # Forward reads z and writes alpha; backward reads z and the gradient, and writes that of z. Each reads one number
    # of a row and writes one: the budget and the threshold, then the threshold and the gradient of the budget.
    moved = 5 * z.numel() * z.element_size() + 4 * budget.numel() * budget.element_size()
    return OpOnGpu(OP_SIZE, times["op"], moved, 2 * source.numel() * source.element_size() / times["copy"].median)


def _lengths() -> dict[int, float]:
    layer = IntraCED(128, ("one", "other"), shared_rank=48, private_rank=32).cuda()

    def call(length: int) -> None:
        inputs = {name: torch.randn(1, length, 128, device="cuda", requires_grad=True) for name in layer.modalities}
        sum_of(layer(inputs).tokens).backward()

    return {length: _added_at_peak(partial(call, length)) for length in LENGTHS}


def _timed(calls: Mapping[str, Step], seconds: float) -> dict[str, Timing]:
    return in_turns(calls, seconds, wait=torch.cuda.synchronize)


def _added_at_peak(call: Step) -> float:
    """Returns the MiB that calls add at their peak, once libraries have been loaded by a first one."""
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _machine() -> dict[str, Any]:
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "multifuse": multifuse.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="approximate duration of each group of measurements")
    parser.add_argument("--compile", nargs="*", choices=[*NAMES, TRANSFORMER], default=COMPILED, metavar="MODEL")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not args.seconds > 0:
        parser.error(f"--seconds must be > 0, got {args.seconds}")
    if not torch.cuda.is_available():
        print("torch finds no GPU: nothing was measured on one")
        return
    report = measured(args.seconds, args.compile)
    print(report.as_table(), end="")
    write_report(report_path(args.results, report.machine["gpu"]), report.as_json(), report.as_table())


if __name__ == "__main__":
    main()
