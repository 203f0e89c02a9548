"""The multifuse command line: trains models, prepares data, evaluates models and describes the installation."""

import argparse
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "train": "train a model on a benchmark and test it",
    "prepare": "decode the media files of an audio-visual benchmark",
    "evaluate": "test a trained model with missing modalities or corrupted input",
    "info": "print versions, kernels and devices for a bug report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    listed = "\n".join(f"  {name:10}{summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="multifuse",
        description=f"{__doc__}\n\ncommands:\n{listed}",
        epilog="Run multifuse COMMAND --help for the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=tuple(COMMANDS), metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    args = parser.parse_args(argv)
    # Imported only now, so that each command loads only the libraries that it needs.
    module = "multifuse.info" if args.command == "info" else f"multifuse.recipes.commands.{args.command}"
    status: int = import_module(module).main(args.arguments)
    return status
