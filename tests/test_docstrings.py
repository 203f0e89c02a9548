"""The docstrings of the public API: each has an example, and every example runs and prints what it shows."""

import doctest
import inspect
from typing import Any

import pytest
import torch

import multifuse
from multifuse import baselines, ops

PUBLIC: dict[str, Any] = {
    **{name: getattr(multifuse, name) for name in multifuse.__all__ if name != "__version__"},
    **{name: getattr(ops, name) for name in ops.__all__ if name != "backend"},
    "Fusion": baselines.Fusion,
    "FusionOutput": baselines.FusionOutput,
}
OUTPUTS = {name for name, value in PUBLIC.items() if hasattr(value, "_fields") or name.endswith("Output")}
"""Result tuples and dataclasses, whose fields are documented where they are declared."""


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_documented(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    assert text.splitlines()[0].endswith((".", ",", ":")), text.splitlines()[:1]
    if name not in OUTPUTS:
        assert "Example:" in text


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - OUTPUTS))
def test_the_example_in_a_docstring_runs(name: str) -> None:
    finder = doctest.DocTestFinder(recurse=False)
    names = {**PUBLIC, "torch": torch}
    (example,) = finder.find(PUBLIC[name], name, globs=names)
    assert example.examples
    messages: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=messages.append)
    assert result.failed == 0, "".join(messages)
