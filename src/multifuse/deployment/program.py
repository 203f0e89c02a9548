"""The module that is exported: a flat dict of named tensors in, a flat dict of named tensors out."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from multifuse.deployment.signature import Signature
from multifuse.layers.stiefel import fix_bases
from multifuse.models.modeling_base import CLCRPreTrainedModel
from multifuse.ops.transforms import standard_operators

_LEFT_OUT = ("loss", "terms", "activations", "levels", "mask", "aggregate.fused")
"""Outputs of the models that a program has only if they are asked for."""


class NamedOutputs(nn.Module):
    """Calls a module with named tensors, and returns the tensors of its output by their names.

    The names are those of fields, keys and indices, joined by dots; a single tensor is called ``output``.
    """

    def __init__(self, module: nn.Module, signature: Signature, outputs: Sequence[str] | None) -> None:
        super().__init__()
        self.module = module
        self._signature = signature
        self._chosen = None if outputs is None else tuple(outputs)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        named = dict(_named(self.module(*self._signature.arguments(inputs)), ""))
        if self._chosen is None:
            left_out = _LEFT_OUT if isinstance(self.module, CLCRPreTrainedModel) else ()
            return {name: values for name, values in named.items() if not _is_one_of(name, left_out)}
        for choice in self._chosen:
            if not any(_is_one_of(name, [choice]) for name in named):
                raise ValueError(f"outputs must be among {list(named)}, got {choice!r}")
        return {name: values for name, values in named.items() if _is_one_of(name, self._chosen)}


def _named(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name or "output", value
        return
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif hasattr(value, "_asdict"):
        items = list(value._asdict().items())
    elif isinstance(value, tuple | list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return
    for key, item in items:
        yield from _named(item, f"{name}.{key}" if name else key)


def _is_one_of(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def program_of(module: NamedOutputs, signature: Signature) -> ExportedProgram:
    """Exports a copy of the module in eval mode, with constant bases, in standard operators, with free sizes."""
    copied = deepcopy(module).eval().requires_grad_(False)
    fix_bases(copied)
    config = getattr(copied.module, "config", None)
    if getattr(config, "debug", False):
        config.debug = False  # type: ignore[union-attr]  # it looks at values, which an exported program cannot do
    shapes = {name: dict.fromkeys(dims, Dim.DYNAMIC) for name, dims in signature.dynamic.items()}
    with torch.no_grad(), standard_operators():
        return torch.export.export(copied, (dict(signature.example),), dynamic_shapes=(shapes,), strict=False)


def names_of_symbols(program: ExportedProgram, signature: Signature) -> dict[str, str]:
    """Returns the names of the free sizes by the symbols that stand for them in the program."""
    return {
        str(size): name
        for (_, shape), dims in zip(_input_shapes(program), signature.dynamic.values(), strict=True)
        for dim, name in dims.items()
        if not isinstance(size := shape[dim], int)
    }


def ranges(program: ExportedProgram, signature: Signature) -> dict[str, tuple[int, int | None]]:
    """Returns the smallest and the largest that every free size may be, by its name; ``None``: no limit."""
    allowed: dict[str, tuple[int, int | None]] = {}
    for (_, shape), dims in zip(_input_shapes(program), signature.dynamic.values(), strict=True):
        for dim, name in dims.items():
            low, high = allowed.get(name, (1, None))
            bounds = program.range_constraints.get(shape[dim].node.expr)
            if bounds is not None:
                # torch writes 2 where it has assumed no more than that the size is not 0 or 1, which it then accepts.
                low = max(low, int(bounds.lower) if bounds.lower > 2 else 1)
                if bounds.upper.is_Integer:
                    high = int(bounds.upper) if high is None else min(high, int(bounds.upper))
            allowed[name] = (low, high)
    return allowed


def _input_shapes(program: ExportedProgram) -> list[tuple[str, Any]]:
    inputs = set(program.graph_signature.user_inputs)
    return [
        (node.name, node.meta["val"].shape)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    ]
