"""The build: the content of the distributions, what happens without torch or a compiler, and the required versions."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from multifuse.ops import native
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")


def run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def setup(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return run(sys.executable, "setup.py", "-q", *arguments, **variables)


def test_a_source_distribution_contains_everything_that_the_readme_mentions(tmp_path: Path) -> None:
    done = setup("sdist", "--dist-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    for expected in (
        *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "Makefile", "constraints.txt"),
        *("docs/training.md", "docs/method.svg", "examples/train_mosi.py", "benchmarks/speed.py"),
        *("tests/conftest.py", "tests/ops/test_projection.py", "tests/recipes/jobs/test_audiovisual.py", ".ci/run"),
        *("src/multifuse/py.typed", "src/multifuse/recipes/data/features/mmsa.py", "setup.py", "pyproject.toml"),
        *("src/multifuse/recipes/explanation/page.html", "tools/try_wheel.py", "csrc/cuda_projection.cu"),
    ):
        assert expected in names, expected
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "src/multifuse").rglob("*.py")}
    assert package <= names


def test_a_wheel_without_kernels_is_for_every_platform_and_holds_the_package_alone(tmp_path: Path) -> None:
    built = ("build", "--build-base", str(tmp_path / "build"), "bdist_wheel", "--bdist-dir", str(tmp_path / "bdist"))
    done = setup(*built, "--dist-dir", str(tmp_path), MULTIFUSE_SKIP_BUILD="1")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    package = {path for path in (ROOT / "src/multifuse").rglob("*") if path.suffix in (".py", ".typed", ".html")}
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
    assert names == {str(path.relative_to(ROOT / "src")) for path in package}


@pytest.mark.parametrize("missing", ["g++", "torch"])
def test_without_torch_or_a_compiler_the_build_says_so_in_a_line_or_fails_if_kernels_are_required(
    missing: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    without = {"g++": {"PATH": str(tmp_path)}, "torch": {"PYTHONPATH": str(tmp_path)}}[missing]
    build = ("build_ext", "--force", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path))
    optional = setup(*build, **without, MULTIFUSE_REQUIRE_KERNELS="0")
    assert optional.returncode == 0, optional.stderr
    (line,) = optional.stderr.splitlines()
    assert line.startswith("multifuse: no kernels are built, because ")
    assert missing in line
    required = setup(*build, **without, MULTIFUSE_REQUIRE_KERNELS="1")
    assert required.returncode == 1
    assert required.stderr.splitlines()[-1] == line.replace("no kernels are", "the kernels cannot be").partition(";")[0]
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.skipif(native.binary("cpu") is None, reason="this installation has no kernels")
def test_an_installation_is_checked_against_plain_torch() -> None:
    with_kernels = run(sys.executable, "tools/check_install.py", MULTIFUSE_FORCE_FALLBACK="0")
    assert with_kernels.returncode == 0, with_kernels.stderr
    assert "results of 'cpp' are those of plain torch" in with_kernels.stdout


def test_an_installation_without_kernels_does_not_pass_for_one_with_them() -> None:
    without = run(sys.executable, "tools/check_install.py", MULTIFUSE_FORCE_FALLBACK="1")
    assert without.returncode == 1
    assert "multifuse on cpu runs 'torch', expected 'cpp'" in without.stderr


def test_trying_a_wheel_on_no_interpreter_is_no_success(tmp_path: Path) -> None:
    wheel = tmp_path / "multifuse-0-py3-none-any.whl"
    wheel.touch()
    done = run(sys.executable, "tools/try_wheel.py", str(wheel), "--python", "python2.0", "--torch", "2.10.0")
    assert done.returncode == 1
    assert "python2.0, torch 2.10.0: skipped: no such interpreter" in done.stdout


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


@pytest.mark.skipif(native.binary("cpu") is None, reason="this installation has no kernels")
def test_kernels_that_compute_something_else_do_not_pass(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ['MULTIFUSE_FORCE_FALLBACK'] == '0':\n"
        "    from multifuse import ops\n"
        "    exact = ops.project_capped_simplex\n"
        "    ops.project_capped_simplex = lambda *arguments: 1.001 * exact(*arguments)\n"
    )
    wrong = run(sys.executable, "tools/check_install.py", PYTHONPATH=str(tmp_path), MULTIFUSE_FORCE_FALLBACK="0")
    assert wrong.returncode == 1
    assert "multifuse on cpu, projection, float64: " in wrong.stderr
