"""multifuse export: writes a trained model as a program that runs without this library."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from multifuse.recipes.commands import trained_model
from multifuse.recipes.commands.trained_model import ArgumentError

if TYPE_CHECKING:
    from multifuse.deployment import Exported

FORMATS = ("export", "onnx", "aoti")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse export", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL", help="output folder of a run, or folder of a saved model")
    described = "torch.export, ONNX or AOTInductor (default: onnx if FILE ends in .onnx, else export)"
    parser.add_argument("--format", choices=FORMATS, help=described)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference accepted (default: 1e-4)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Exports the model, and prints what was written and how it was compared."""
    from multifuse.deployment import ExportError, export
    from multifuse.recipes.files import check_writable
    from multifuse.recipes.jobs import progress

    if args.output.exists():
        raise ArgumentError(f"--output {args.output} already exists; choose another file")
    check_writable(args.output.parent)
    progress.quieten_loading()
    model = trained_model.load_any_model("MODEL", args.model)
    sizes = _sizes(args, model)
    kind: Literal["export", "onnx", "aoti"] = args.format or ("onnx" if args.output.suffix == ".onnx" else "export")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        exported = export(model, args.output, format=kind, sizes=sizes, tolerance=args.tolerance)
    except (ExportError, ImportError, ValueError) as error:
        raise ArgumentError(f"MODEL {args.model}: {error}") from None
    print(_described(exported))


def _sizes(args: argparse.Namespace, model: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of one frame or sound of the modalities that have a backbone, as the processor makes them."""
    import numpy as np

    from multifuse.processing import FrameInput, SoundInput

    specs = model.config.modalities
    if not any(spec["encoder"] in ("image", "audio") for spec in specs.values()):
        return {}
    sizes: dict[str, tuple[int, ...]] = {}
    for name, kind in trained_model.load_processor("MODEL", args.model).modalities.items():
        if isinstance(kind, FrameInput):
            sizes[name] = (3 if kind.flow is None else 2, kind.size, kind.size)
        elif isinstance(kind, SoundInput):
            silence = np.zeros(max(int(kind.options.rate * kind.options.seconds), 1), np.float32)
            sizes[name] = tuple(kind(silence).shape)
    return sizes


def _described(exported: "Exported") -> str:
    limits = (
        f"{name} from {low}" + ("" if high is None else f" to {high}") for name, (low, high) in exported.sizes.items()
    )
    return "\n".join(
        [
            f"Wrote {exported.path} ({exported.format})",
            f"inputs: {', '.join(exported.inputs)}",
            f"outputs: {', '.join(exported.outputs)}",
            f"sizes: {', '.join(limits)}",
            f"largest difference from the model: {exported.difference:.1e}, at {len(exported.checks)} sizes",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exports as the arguments say, and returns the exit status."""
    args = _parsed(argv)
    return trained_model.status("export", lambda: run(args))
