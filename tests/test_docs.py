"""The documents: every README example runs, every relative link leads somewhere."""

import re
import warnings
from pathlib import Path

import pytest

from tests.recipes.test_hostile import CASES

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*src=\"([^\"]+)\"")
_FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_resolve(document: Path) -> None:
    text = _FENCE.sub("", document.read_text())
    for match in _LINK.finditer(text):
        target = match[1] or match[2]
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        resolved = (document.parent / path).resolve() if path else document
        assert resolved.exists(), f"{document.name} links to {target}"
        if anchor and resolved.suffix == ".md":
            assert anchor in _anchors(resolved), f"{document.name} links to {target}"


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings}


def test_every_python_block_of_the_readme_runs() -> None:
    blocks = [code for language, code in _FENCE.findall((ROOT / "README.md").read_text()) if language == "python"]
    assert blocks, "the README shows no use of IntraCED"
    assert any("IntraCED" in code for code in blocks)
    for code in blocks:
        with warnings.catch_warnings():
            exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_every_test_that_robustness_names_exists_and_its_counts_are_the_tests() -> None:
    text = (ROOT / "docs/robustness.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) > 40
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), f"{file}::{name}"
    assert f"| {sum(CASES.values()):,}; [" in text


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make (\w+)`?", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
