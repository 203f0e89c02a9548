"""The documents: links resolve, the site has every page, and the files, tests and figures they name exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from multifuse import baselines, deployment
from tests.paths import ROOT
from tests.recipes.test_hostile import CASES
from tests.test_docstrings import PUBLIC
from tests.test_import import LAYERS

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PUBLISHED = (
    "https://github.com/multifuse/multifuse/blob/main/",
    "https://raw.githubusercontent.com/multifuse/multifuse/main/",
)
"""Prefixes of the README's links: it is also shown outside the repository, where relative links do not resolve."""
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*src=\"([^\"]+)\"")
_FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
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


def test_every_install_from_a_checkout_builds_the_kernels_or_says_that_it_does_not() -> None:
    commands = [line for page in DOCUMENTS for line in page.read_text().splitlines() if "pip install" in line]
    from_checkout = [line for line in commands if re.search(r"pip install\b[^#`]* \"?\.", line)]
    assert len(from_checkout) > 5
    for line in from_checkout:
        assert "--no-build-isolation" in line or "MULTIFUSE_SKIP_BUILD=1" in line, line


def test_contributing_names_what_is_in_the_files_that_it_names() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    paths = re.findall(r"`([\w/]+\.py)`", text)
    named = re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", text)
    assert paths
    assert named
    for path in paths:
        assert any((folder / path).exists() for folder in (ROOT, ROOT / "src/multifuse")), path
    for name, path in named:
        assert re.search(rf"\b{name}\b", (ROOT / "src/multifuse" / path).read_text()), f"{name} in {path}"


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


def test_the_site_has_every_page_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n", 1)[1].split("\n\n", 1)[0]
    entries = re.findall(r"^ *- [^:#]+: (\S+)$", navigation, re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(entries) == sorted(pages)


def test_the_api_shows_every_public_name_once() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs/api").glob("*.md"))
    shown = re.findall(r"^::: multifuse\.(?:\w+\.)*(\w+)$", pages, re.MULTILINE)
    public = {*PUBLIC, *baselines.__all__, *deployment.__all__, "backend", "CLCRPreTrainedModel"}
    assert sorted(shown) == sorted(public)


def test_the_scores_in_choosing_md_are_those_of_the_evidence() -> None:
    evidence = (ROOT / "docs/evidence.md").read_text()
    for page in ("choosing.md", "missing.md"):
        text = re.sub(r"^\| CMU-MOSI, .*$", "", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
        scores = re.findall(r"\d\.\d{3} ± \d\.\d{3}", text)
        assert len(scores) > 8
        assert [score for score in scores if score not in evidence] == [], page


def test_the_costs_in_choosing_md_are_those_of_the_speed_page() -> None:
    speed, choosing = ((ROOT / "docs" / name).read_text() for name in ("speed.md", "choosing.md"))
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| ([\d,]+) \| ([\d.]+) \| (\d+) \| (\d+) \|$", choosing, re.MULTILINE)
    assert len(rows) == 7
    for parameters, step, memory, launches in rows:
        assert re.search(rf"\| {parameters} \| \d+ ms \| {step} \| {memory} \| {launches} \|", speed), parameters


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
