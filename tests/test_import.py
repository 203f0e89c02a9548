"""`import multifuse` stays light, every public name resolves, and no part of the package imports a higher one."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import multifuse
from tests.paths import ROOT

_HEAVY = ("transformers", "sklearn", "matplotlib", "datasets", "av", "rich", "accelerate")


def test_importing_the_layers_loads_no_heavy_module() -> None:
    code = (
        "import sys, multifuse\n"
        "from multifuse import InterCAD, IntraCED, StiefelProjector, TokenBudget, WhiteningXCorrLoss\n"
        f"print([name for name in {_HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    for name in multifuse.__all__:
        assert getattr(multifuse, name) is not None
    assert set(multifuse.__all__) <= set(dir(multifuse))
    assert not hasattr(multifuse, "no_such_name")


LAYERS = ("_internal", "ops", "layers", "losses", "models", "baselines", "media", "processing", "deployment", "recipes")
"""The parts of the package, lowest first: each may import itself and the parts before it."""
# The public names and the report for bugs belong to the library, `python -m multifuse` to the application.
PLACES = {"version": "_internal", "__init__": "deployment", "info": "models", "__main__": "recipes"}
SOURCES = sorted((ROOT / "src/multifuse").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Returns the modules of multifuse that a file imports, anywhere in it, as ``part`` or ``part.module``."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("multifuse.") for name in modules if name.startswith("multifuse.")}


def rank(part: str) -> int:
    return LAYERS.index(PLACES.get(part, part))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src/multifuse")))
def test_a_file_imports_nothing_from_a_higher_part(path: Path) -> None:
    highest = rank(path.relative_to(ROOT / "src/multifuse").parts[0].removesuffix(".py"))
    known = (*LAYERS, *PLACES)
    above = [name for name in imported(path) if (part := name.split(".")[0]) in known and rank(part) > highest]
    assert not above


def test_the_package_does_not_import_examples_benchmarks_or_tests() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(r"^\s*(from|import) (examples|benchmarks|tests)\b", text, re.MULTILINE), path


def test_importing_a_part_loads_no_higher_part() -> None:
    """Includes what the lazy names of the package load, which the import statements do not show."""
    # One process, lowest part first: what is loaded too early is higher than all that has been imported by then.
    code = (
        f"import importlib, sys\nparts = {LAYERS}\nfor index, part in enumerate(parts):\n"
        "    importlib.import_module(f'multifuse.{part}')\n"
        "    print([part, *(name for name in parts[index + 1 :] if f'multifuse.{name}' in sys.modules)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str([part]) for part in LAYERS]
