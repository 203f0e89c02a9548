"""The documents: the README's examples run, links resolve, and the files and tests they name exist."""

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.recipes.test_hostile import CASES
from tests.test_import import LAYERS

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PUBLISHED = (
    "https://github.com/multifuse/multifuse/blob/main/",
    "https://raw.githubusercontent.com/multifuse/multifuse/main/",
)
"""Prefixes of the README's links: it is also shown outside the repository, where relative links do not resolve."""
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*src=\"([^\"]+)\"")
_FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_the_repository_resolve(document: Path) -> None:
    text = _FENCE.sub("", document.read_text())
    for match in _LINK.finditer(text):
        target = match[1] or match[2]
        folder = document.parent
        for prefix in PUBLISHED:
            if target.startswith(prefix):
                target, folder = target.removeprefix(prefix).removesuffix("?sanitize=true"), ROOT
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        resolved = (folder / path).resolve() if path else document
        assert resolved.exists(), f"{document.name} links to {target}"
        if anchor and resolved.suffix == ".md":
            assert anchor in _anchors(resolved), f"{document.name} links to {target}"


def test_the_readme_has_no_relative_link() -> None:
    for match in _LINK.finditer(_FENCE.sub("", (ROOT / "README.md").read_text())):
        assert (match[1] or match[2]).startswith("https://"), match[0]


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings}


def _summary(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text()))
    assert text, f"{module} has no docstring"
    return text.splitlines()[0].rstrip(".").replace("``", "`")


def _tree(folder: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yields the files of a package with the first lines of their docstrings, folders after files."""
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield "    " * depth + file.name, _summary(file)
    folders = [path for path in folder.iterdir() if (path / "__init__.py").exists()]
    for path in sorted(folders, key=lambda path: ((*LAYERS, path.name).index(path.name), path.name)):
        yield "    " * depth + path.name + "/", _summary(path / "__init__.py")
        yield from _tree(path, depth + 1)


def test_the_package_tree_in_design_md_shows_every_file_with_its_docstring() -> None:
    lines = [("__init__.py", _summary(ROOT / "src/multifuse/__init__.py")), *_tree(ROOT / "src/multifuse")]
    width = max(len(name) for name, _ in lines) + 2
    expected = "\n".join(f"{name:<{width}}{summary}" for name, summary in lines)
    tree = (ROOT / "docs/design.md").read_text().split("```text\n", 1)[1].split("\n```", 1)[0]
    assert tree == expected


def test_every_python_block_in_the_readme_runs() -> None:
    blocks = [code for language, code in _FENCE.findall((ROOT / "README.md").read_text()) if language == "python"]
    assert any("IntraCED" in code for code in blocks), "the README shows no use of IntraCED"
    for code in blocks:
        with warnings.catch_warnings():
            exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_tests_named_in_robustness_md_exist_and_its_case_count_is_right() -> None:
    text = (ROOT / "docs/robustness.md").read_text()
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(tests) > 40
    for file, name in tests:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), f"{file}::{name}"
    assert f"| {sum(CASES.values()):,}; [" in text


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make (\w+)`?", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
