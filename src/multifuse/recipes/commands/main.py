"""The multifuse command line: trains models, prepares data, evaluates models and describes the installation."""

from collections.abc import Sequence
from importlib import import_module

from multifuse.recipes.commands.subcommand import subcommand

COMMANDS = {
    "train": "train a model on a benchmark and test it",
    "prepare": "decode the media files of an audio-visual benchmark",
    "evaluate": "test a trained model with missing modalities or corrupted input",
    "predict": "predict for a new sample, or for a set of them",
    "explain": "show what a trained CLCR model computes, as one HTML page",
    "export": "write a trained model as a program for torch.export, ONNX or AOTInductor",
    "info": "print versions, kernels and devices for a bug report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    name, arguments = subcommand("multifuse", str(__doc__), "command", COMMANDS, argv)
    # Imported only now, so that each command loads only the libraries that it needs.
    module = "multifuse.info" if name == "info" else f"multifuse.recipes.commands.{name}"
    status: int = import_module(module).main(arguments)
    return status
