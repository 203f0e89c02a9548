"""The ``multifuse`` command: trains, prepares data, evaluates, and reports on the installation."""

import argparse
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "train": "train a model on a benchmark and measure it",
    "prepare": "decode the media files of an audio-visual benchmark, once",
    "evaluate": "measure a trained model with modalities missing or its input corrupted",
    "info": "print versions, kernels and devices, for a bug report",
}


def main(given: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    listed = "\n".join(f"  {name:10}{summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="multifuse",
        description=f"{__doc__}\n\ncommands:\n{listed}",
        epilog="multifuse COMMAND --help shows the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=tuple(COMMANDS), metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    parsed = parser.parse_args(given)
    # Imported when chosen: each command loads only the libraries that it needs.
    home = "multifuse.info" if parsed.command == "info" else f"multifuse.recipes.commands.{parsed.command}"
    status: int = import_module(home).main(parsed.arguments)
    return status
