"""The build: the content of a source distribution, the error without a compiler, and the required versions."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")


def setup(*arguments: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    environment = os.environ if path is None else {**os.environ, "PATH": path}
    command = [sys.executable, "setup.py", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_source_distribution_contains_everything_that_the_readme_mentions(tmp_path: Path) -> None:
    done = setup("sdist", "--dist-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    for expected in (
        *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "Makefile", "constraints.txt"),
        *("csrc/cuda.cu", "docs/training.md", "docs/method.svg", "examples/train_mosi.py", "benchmarks/speed.py"),
        *("tests/conftest.py", "tests/ops/test_projection.py", "tests/recipes/jobs/test_audiovisual.py", ".ci/run"),
        *("src/multifuse/py.typed", "src/multifuse/recipes/data/features/mmsa.py", "setup.py", "pyproject.toml"),
        "src/multifuse/recipes/explanation/page.html",
    ):
        assert expected in names, expected
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "src/multifuse").rglob("*.py")}
    assert package <= names


def test_without_a_compiler_the_build_names_it_and_the_workaround(tmp_path: Path) -> None:
    done = setup(
        "build_ext", "--force", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path), path=str(tmp_path)
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "multifuse: the compiler g++ is not on the PATH" in last
    assert "MULTIFUSE_SKIP_BUILD=1" in last
    assert not list(tmp_path.rglob("*.so"))


def test_dependencies_are_limited_to_tested_versions_and_the_constraints_satisfy_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {Requirement(text).name: Requirement(text) for text in project["dependencies"]}
    assert not required["transformers"].specifier.contains("5.3.0"), "its config class does not accept our config"
    assert not required["transformers"].specifier.contains("6.0.0")
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    pinned = dict(line.split("==") for line in lines)
    for extra in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, extra):
            assert requirement.name == "multifuse" or requirement.specifier.contains(pinned[requirement.name])
    assert {"Source", "Documentation", "Changelog", "Issues"} <= set(project["urls"])
