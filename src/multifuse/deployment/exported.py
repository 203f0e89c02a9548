"""Exports models and layers as programs that run without this library."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.export import ExportedProgram
from transformers import PreTrainedModel

from multifuse._internal import checks
from multifuse._internal.whole_files import whole
from multifuse.deployment import formats
from multifuse.deployment.checked import Check, difference, sizes_to_check
from multifuse.deployment.program import NamedOutputs, names_of_symbols, program_of, ranges
from multifuse.deployment.signature import Signature, signature_of


class ExportError(RuntimeError):
    """Raised if a module cannot be exported, or its program computes something else; the message is one line."""


@dataclass(frozen=True)
class Exported:
    """A program that was written."""

    path: Path
    format: str
    inputs: tuple[str, ...]
    """The names of the inputs, in the order in which a caller that has no names passes them."""
    outputs: tuple[str, ...]
    """The names of the outputs, in their order."""
    sizes: dict[str, tuple[int, int | None]]
    """The smallest and the largest that every free size may be, by name; ``None``: no limit."""
    checks: tuple[Check, ...]
    """The batches on which the program was compared with the original."""

    @property
    def difference(self) -> float:
        """The largest difference from the original over all checks."""
        return max(check.difference for check in self.checks)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    format: Literal["export", "onnx", "aoti"] = "export",
    example: Sequence[Any] | None = None,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Writes a model or layer as a program in standard operators, which runs where this library is not installed.

    The program computes what the model does in eval mode, with constant bases. It takes a dict of named tensors and
    returns another: a modality's input has the modality's name, its mask ``NAME.mask``, bool, True = real token;
    outputs have the names of their fields. The sizes of batch and lengths are free. Before the file gets its name it is
    loaded and run at four combinations of sizes, with padding and a sample that lacks its modalities, and compared with
    the model.

    Args:
        model: a CLCR model or baseline, an `IntraCED`, `StiefelProjector` or `TokenBudget`; or, with ``example``, any
            module that holds layers of this library.
        path: the file to write; an existing one is replaced.
        format: ``"export"`` (`torch.export.load` reads it), ``"onnx"`` (onnxruntime) or ``"aoti"`` (compiled by
            AOTInductor for the device of the model; Python and C++ run it).
        example: positional arguments of ``forward`` for a batch, in tensors, dicts, tuples and lists.
        dynamic: by name of an input, its dimensions that are free, each with a name of its size; equal names are equal
            sizes. By default the batch, and the length of sequences (B, T, d), token ids and masks (B, T) and frames.
        sizes: by modality with a backbone, the shape of one frame or sound, such as (3, 224, 224); by default that of
            the backbone's config, or 224 pixels square.
        outputs: names of outputs, or of groups of them, such as ``"activations"``; by default all, in a CLCR model the
            logits and weights.
        tolerance: the largest difference that is accepted, absolute where an output is below 1, else relative to its
            largest value.

    Raises:
        ValueError: an unknown format, a module without an example, an example that does not fit, unknown outputs.
        ImportError: a format whose libraries are missing.
        ExportError: the module cannot be exported, or the program differs from it; nothing is written.
        OSError: the file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> from multifuse import TokenBudget
        >>> exported = export(TokenBudget(), f"{mkdtemp()}/budget.pt2")
        >>> exported.inputs, exported.difference < 1e-5
        (('evidence', 'mask'), True)
        >>> program = torch.export.load(exported.path).module()
        >>> program({"evidence": torch.rand(2, 50), "mask": torch.ones(2, 50, dtype=torch.bool)})["output"].shape
        torch.Size([2, 50])
    """
    checks.choice("format", format, tuple(formats.WRITERS))
    checks.positive_number("tolerance", tolerance)
    formats.check_installed(format)
    traced = trace(model, example=example, dynamic=dynamic, sizes=sizes, outputs=outputs)
    return traced.write(Path(path), format, tolerance)


@dataclass(frozen=True)
class Traced:
    """A module and its program, not yet written."""

    module: NamedOutputs
    signature: Signature
    program: ExportedProgram
    outputs: tuple[str, ...]

    def write(self, path: Path, format: str, tolerance: float) -> Exported:
        """Writes the program, runs the file and compares it with the module; then the file gets its name."""
        names = formats.Names(
            tuple(self.signature.example), self.outputs, names_of_symbols(self.program, self.signature)
        )
        allowed = ranges(self.program, self.signature)
        with formats.quiet(), whole(path) as partial:
            with _explained(f"format {format!r}"):
                formats.WRITERS[format](self.program, names, partial)
                runner = formats.LOADERS[format](partial, names)
            compared = self._compared(runner, sizes_to_check(self.signature.sizes(), allowed), tolerance)
        return Exported(path, format, names.inputs, names.outputs, allowed, compared)

    def _compared(self, runner: formats.Runner, sizes: Sequence[dict[str, int]], tolerance: float) -> tuple[Check, ...]:
        compared = []
        for seed, free in enumerate(sizes):
            inputs = self.signature.drawn(free, seed)
            with _evaluating(self.module), torch.no_grad():
                expected = self.module(inputs)
                with _explained(f"the program at {free}"):
                    apart = difference(runner(inputs), expected)
            if not apart <= tolerance:
                raise ExportError(
                    f"the program differs from the model by {apart:.1e} at {free}, more than tolerance={tolerance}"
                )
            compared.append(Check(free, apart))
        return tuple(compared)


def trace(
    model: nn.Module,
    *,
    example: Sequence[Any] | None = None,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
) -> Traced:
    """Returns the program of a module, for one or more formats; the arguments are those of `export`."""
    signature = signature_of(model, example, dynamic, sizes or {})
    module = NamedOutputs(model, signature, outputs)
    with _evaluating(model), torch.no_grad():
        named = tuple(module(signature.example))
        with formats.quiet(), _explained("torch.export"):
            return Traced(module, signature, program_of(module, signature), named)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode, with outputs that have names, and afterwards every module back into its own."""
    training = [module for module in model.modules() if module.training]
    configs = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    nameless = [config for config in configs if not config.return_dict]
    model.eval()
    for config in nameless:
        config.return_dict = True
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for config in nameless:
            config.return_dict = False


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns whatever torch or a runtime raises into one line; a disk that is full stays an error of the disk."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        raise ExportError(f"{what} failed: {type(error).__name__}: {lines[0][:300]}") from error
