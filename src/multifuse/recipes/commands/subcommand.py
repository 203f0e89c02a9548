"""The first word of a command, which decides what the rest of its arguments mean."""

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Subcommand(NamedTuple):
    """The word that was chosen, and the arguments after it."""

    name: str
    arguments: list[str]


def subcommand(
    prog: str, description: str, kind: str, summaries: Mapping[str, str], argv: Sequence[str] | None
) -> Subcommand:
    """Parses the first word, one of ``summaries``, which the help lists; ``kind`` is what such a word is called."""
    width = 2 + max(map(len, summaries))
    listed = "\n".join(f"  {name:{width}}{summary}" for name, summary in summaries.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description=f"{description}\n\n{kind}s:\n{listed}",
        epilog=f"Run {prog} {kind.upper()} --help for its arguments.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=tuple(summaries), metavar=kind.upper())
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    args = parser.parse_args(argv)
    return Subcommand(args.name, args.arguments)
