"""The multifuse command line: trains models, prepares data, evaluates models and describes the installation."""

import sys
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
EXTRAS = {
    "training": ("accelerate", "sklearn", "matplotlib", "rich", "jinja2"),
    "media": ("av", "datasets", "cv2", "PIL"),
}
"""By optional extra of the package, the modules that it brings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    name, arguments = subcommand("multifuse", str(__doc__), "command", COMMANDS, argv)
    # Imported only now, so that each command loads only the libraries that it needs.
    module = "multifuse.info" if name == "info" else f"multifuse.recipes.commands.{name}"
    try:
        status: int = import_module(module).main(arguments)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if missing in modules), None)
        if extra is None:
            raise
        print(f"multifuse {name}: error: {missing} is not installed: pip install 'multifuse[{extra}]'", file=sys.stderr)
        return 2
    return status
