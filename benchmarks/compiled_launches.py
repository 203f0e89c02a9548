"""Counts the calls that a training step is left with under torch.compile: python -m benchmarks.launches --compiled.

Inductor writes the code of the forward and of the backward pass, for a CPU; it is read, and neither built nor run.
Its C++ backend puts neighbouring loops into one function, which its backend for GPUs does not always do: the calls are
the least that a GPU would launch, and the loops inside the functions about the most.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._inductor import config
from torch._inductor.graph import GraphLowering

from multifuse.ops import transforms

_FUNCTION = re.compile(r"^(\w+) = async_compile\.\w+\(.*?r?'''(.*?)'''\)", re.DOTALL | re.MULTILINE)
_LOOP = re.compile(r"^ {4}\{$", re.MULTILINE)
_LIBRARY_CALL = re.compile(r"^ +(?:\w+ = )?(?:extern_kernels|aten|torch\.ops\.\w+)\.[\w.]+\(", re.MULTILINE)


@dataclass(frozen=True)
class Calls:
    """What the code of one graph calls."""

    generated: int
    """Calls of functions that inductor has generated."""
    loops: int
    """The loops in these functions."""
    library: int
    """Calls of torch's own operators and of registered ones, such as matrix products and the projection."""


@dataclass(frozen=True)
class CompiledStep:
    what: str
    forward: Calls
    backward: Calls


class _WrittenError(Exception):
    """Raised where a graph would run whose code has only been written."""


class _NotBuilt:
    """Stands for the module of a graph's code."""

    def call(self, *_: object) -> None:
        raise _WrittenError


def compiled_step(what: str, model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> CompiledStep:
    """Counts the calls of a compiled step, given the loss as a function of the compiled model."""
    forward, backward = map(calls_in, code_of_step(model, loss))
    return CompiledStep(what, forward, backward)


def code_of_step(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> tuple[str, str]:
    """Returns the code that inductor writes for the forward and the backward pass, for every shape at once."""
    written: list[str] = []

    def write(graph: GraphLowering) -> _NotBuilt:
        written.append(graph.codegen()[0].value)
        return _NotBuilt()

    torch._dynamo.reset()
    with ExitStack() as stack:
        stack.enter_context(patch.object(transforms, "_IS_COMPILED", False))
        stack.enter_context(patch.object(GraphLowering, "compile_to_module", write))
        stack.enter_context(config.patch({"force_disable_caches": True, "cpp.threads": 1}))
        stack.enter_context(suppress(_WrittenError))
        loss(torch.compile(model, fullgraph=True, dynamic=True))  # type: ignore[arg-type]
    torch._dynamo.reset()  # nothing may find the graphs that were not built
    forward, backward = written  # with shapes that are symbols, both are written before the first one runs
    return forward, backward


def calls_in(code: str) -> Calls:
    """Counts the calls in the code of one graph."""
    loops = {name: len(_LOOP.findall(body)) for name, body in _FUNCTION.findall(code)}
    body = code[code.index("def call(") :]
    called = [name for name in re.findall(r"^ +(\w+)\(", body, re.MULTILINE) if name in loops]
    return Calls(len(called), sum(loops[name] for name in called), len(_LIBRARY_CALL.findall(body)))


def table(steps: Sequence[CompiledStep]) -> str:
    """Returns the counts in Markdown."""
    lines = [
        "| what | forward: generated (loops) | library | backward: generated (loops) | library | calls together |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_row, steps)]) + "\n"


def _row(step: CompiledStep) -> str:
    cells = [cell for calls in (step.forward, step.backward) for cell in _cells(calls)]
    together = sum(calls.generated + calls.library for calls in (step.forward, step.backward))
    return f"| {' | '.join([step.what, *cells, str(together)])} |"


def _cells(calls: Calls) -> Iterator[str]:
    yield f"{calls.generated} ({calls.loops})"
    yield str(calls.library)
