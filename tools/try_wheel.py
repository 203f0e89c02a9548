"""Installs one wheel beside several versions of Python and torch, and checks each installation by check_install.py.

    python tools/try_wheel.py dist/multifuse-0.1.0-py3-none-manylinux_2_28_x86_64.whl
    python tools/try_wheel.py WHEEL --python python3.10 python3.14 --torch 2.10.0 newest

Every pair gets a virtual environment of its own, which is removed afterwards. An interpreter that is not on this
machine is skipped, and so is a version of torch that has no build for an interpreter; both are said. Builds of torch
come from wherever pip finds them: with PIP_EXTRA_INDEX_URL set to PyTorch's index for the CPU it takes the small ones.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14")
TORCHES = ("2.10.0", "newest")
CHECK = Path(__file__).resolve().parent / "check_install.py"


def works(python: str) -> bool:
    """Whether the interpreter is there; a version manager's stub may be there without it."""
    return shutil.which(python) is not None and not subprocess.run([python, "-c", ""], capture_output=True).returncode


def outcome(wheel: Path, python: str, torch: str, arguments: list[str]) -> str:
    """Installs the wheel in a new environment and checks it; returns ``passed``, ``failed`` or ``skipped``, and why."""
    if not works(python):
        return "skipped: no such interpreter"
    requirement = "torch" if torch == "newest" else f"torch=={torch}"
    with tempfile.TemporaryDirectory(prefix="multifuse-wheel-") as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside = str(Path(folder) / "bin" / "python")
        pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        found = subprocess.run([*pip, requirement], capture_output=True, text=True)
        if found.returncode and "No matching distribution" in found.stderr:
            return f"skipped: no build of {requirement} for this interpreter"
        if found.returncode or subprocess.run([*pip, str(wheel)]).returncode:
            return f"failed: could not be installed {found.stderr[-500:]}".rstrip()
        checked = subprocess.run([inside, str(CHECK), *arguments], cwd=folder)
        return "failed" if checked.returncode else "passed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="NAME", help=f"default: {' '.join(PYTHONS)}")
    parser.add_argument("--torch", nargs="+", default=TORCHES, metavar="VERSION", help=f"default: {' '.join(TORCHES)}")
    parser.add_argument("--without-kernels", action="store_true", help="passed on to check_install.py")
    arguments = parser.parse_args()
    if not arguments.wheel.is_file():
        parser.error(f"no such wheel: {arguments.wheel}")
    passed_on = ["--without-kernels"] if arguments.without_kernels else []
    outcomes = {}
    for python in arguments.python:
        for torch in arguments.torch:
            print(f"== {python}, torch {torch}", flush=True)
            outcomes[python, torch] = outcome(arguments.wheel.resolve(), python, torch, passed_on)
            print(outcomes[python, torch], flush=True)
    print()
    for (python, torch), result in outcomes.items():
        print(f"{python}, torch {torch}: {result}")
    failed = any(result.startswith("failed") for result in outcomes.values())
    return 1 if failed or "passed" not in outcomes.values() else 0


if __name__ == "__main__":
    sys.exit(main())
