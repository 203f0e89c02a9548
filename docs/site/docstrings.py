"""Turns what our docstrings write in their own way into what mkdocstrings reads: equations, sections, references."""

import re
import textwrap
from pathlib import Path
from typing import Any

import griffe

_PAGES = sorted(Path(__file__).parents[1].joinpath("api").glob("*.md"))
_SHOWN = [path for page in _PAGES for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]
IDENTIFIERS = {path.rpartition(".")[2]: path for path in _SHOWN}
"""Where each public name is documented, as mkdocstrings calls the place."""
_MATH = re.compile(r"^\.\. math::(.*\n(?:[ \t]+\S.*\n)*)", re.MULTILINE)
_SHARED_ENTRY = re.compile(r"^ {4}([a-z]\w*)((?:, [a-z]\w*)+): (.*\n(?: {8}.*\n)*)", re.MULTILINE)
_SHAPE = re.compile(r"^Shape:\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
_NAME = re.compile(r"(?<![`\[])`([A-Za-z]\w+)`(?!`)")


class Rewriting(griffe.Extension):
    """Rewrites every docstring when it has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """Returns a docstring with fenced equations, sections that are known, an entry per argument, and references."""
    text = _MATH.sub(lambda match: f"```math\n{textwrap.dedent(match[1].strip())}\n```\n", text + "\n")
    text = _SHAPE.sub(lambda match: f"**Shape:**\n\n{textwrap.dedent(match[1])}", text)
    text = re.sub(r"^(Source|Parameters|Note): ", r"**\1:** ", text, flags=re.MULTILINE)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = _SHARED_ENTRY.sub(_entries, text)
    return _NAME.sub(lambda match: _reference(match[1]), text).rstrip("\n")


def _entries(match: re.Match[str]) -> str:
    """Returns the entry under its first name, and one for each further name that refers to it."""
    first, others, text = match.groups()
    return f"    {first}: {text}" + "".join(f"    {name}: see ``{first}``.\n" for name in others.split(", ")[1:])


def _reference(name: str) -> str:
    return f"[`{name}`][{IDENTIFIERS[name]}]" if name in IDENTIFIERS else f"`{name}`"
