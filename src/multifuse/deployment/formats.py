"""The formats of programs: how each is written to a file, and how the file is run."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

Runner = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Maps named inputs to named outputs."""


class Names(NamedTuple):
    """The names that a program has in a file."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: dict[str, str]
    """Names of the free sizes, by their symbols."""


def write_export(program: ExportedProgram, names: Names, path: Path) -> None:
    """Writes a program of ``torch.export``."""
    with path.open("wb") as file:
        torch.export.save(program, file)


def load_export(path: Path, names: Names) -> Runner:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def write_onnx(program: ExportedProgram, names: Names, path: Path) -> None:
    """Writes an ONNX model, in one file."""
    exported = torch.onnx.export(
        program,
        (),
        dynamo=True,
        input_names=list(names.inputs),
        output_names=list(names.outputs),
        verbose=False,
        external_data=False,
    )
    assert exported is not None
    _rename_sizes(exported.model.graph, names.sizes)
    exported.save(str(path), external_data=False)


def _rename_sizes(graph: Any, names: Mapping[str, str]) -> None:
    import onnx_ir

    for value in [*graph.inputs, *graph.outputs]:
        value.shape = onnx_ir.Shape(
            [size if isinstance(size, int) else names.get(str(size.value), size.value) for size in value.shape]
        )


def load_onnx(path: Path, names: Names) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        feed = {name: values.cpu().numpy() for name, values in inputs.items()}
        return dict(zip(names.outputs, map(torch.from_numpy, session.run(list(names.outputs), feed)), strict=True))

    return run


def write_aoti(program: ExportedProgram, names: Names, path: Path) -> None:
    """Writes a package that AOTInductor has compiled, with the names of inputs and outputs in its metadata."""
    metadata = {"inputs": " ".join(names.inputs), "outputs": " ".join(names.outputs)}
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "program.pt2"
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(package), inductor_configs={"aot_inductor.metadata": metadata}
        )
        path.write_bytes(package.read_bytes())


def load_aoti(path: Path, names: Names) -> Runner:
    with tempfile.TemporaryDirectory() as folder:  # the loader wants a name that ends in .pt2
        package = Path(folder) / "program.pt2"
        package.symlink_to(path.resolve())
        runner: Runner = torch._inductor.aoti_load_package(str(package))
    return runner


WRITERS = {"export": write_export, "onnx": write_onnx, "aoti": write_aoti}
LOADERS = {"export": load_export, "onnx": load_onnx, "aoti": load_aoti}
_NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def check_installed(kind: str) -> None:
    """Checks that the libraries of a format can be imported.

    Raises:
        ImportError: in one line, with the command that installs them.
    """
    for module in _NEEDS.get(kind, ()):
        try:
            import_module(module)
        except ImportError:
            raise ImportError(
                f"format {kind!r} needs {', '.join(_NEEDS[kind])}; {module} is missing: pip install 'multifuse[export]'"
            ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves out what torch's exporters warn of about themselves."""
    logger = logging.getLogger("torch.onnx")  # it tells which other libraries are not installed
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
