"""Runs tests with other versions of torch, each beside the other packages of this environment.

    .venv/bin/python tools/try_torch.py 2.10.0 2.11.0 2.12.0
    .venv/bin/python tools/try_torch.py 2.12.0 --tests tests/losses/test_compile.py

The kernels are those of this installation: one binary serves every version. Each version gets a virtual environment of
its own, which is removed afterwards. Builds of torch come from wherever pip finds them: with PIP_EXTRA_INDEX_URL set to
PyTorch's index for the CPU it takes the small ones. The default tests take five to ten minutes of two cores a version.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("ops", "layers", "losses", "models", "baselines")
# Fails unless the tests will use this torch, of the new environment, and compiled kernels.
CHECK = """
import sys, torch
from multifuse.ops import backend
version, folder = sys.argv[1:]
assert torch.__version__.split("+")[0] == version and torch.__file__.startswith(folder), torch.__file__
assert backend("cpu") == "cpp", "this installation has no kernels"
"""


def outcome(version: str, tests: list[str], processes: int) -> str:
    """Returns ``passed`` or ``failed``, and why."""
    with tempfile.TemporaryDirectory(prefix="multifuse-torch-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        inside = str(Path(folder) / "bin" / "python")
        pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, f"torch=={version}"]).returncode:
            return "failed: could not be installed"
        # The packages of this environment come after those of the new one, so that torch is not this one's.
        (site,) = Path(folder).glob("lib/python*/site-packages")
        others = sysconfig.get_path("purelib")
        (site / "others.pth").write_text(f"import site; site.addsitedir({others!r})\n")
        path = f"{folder}/bin:{os.environ['PATH']}"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "PATH": path}
        if subprocess.run([inside, "-c", CHECK, version, folder], env=environment).returncode:
            return "failed: not what would be tested"
        pytest = [inside, "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no", "--dist", "loadfile"]
        done = subprocess.run([*pytest, "-n", str(processes), *tests], cwd=ROOT, env=environment)
        return "failed" if done.returncode else "passed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="of torch, such as 2.10.0")
    parser.add_argument("--tests", nargs="+", default=[f"tests/{name}" for name in TESTS], metavar="PATH")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    arguments = parser.parse_args()
    outcomes = {version: outcome(version, arguments.tests, arguments.processes) for version in arguments.versions}
    print()
    for version, result in outcomes.items():
        print(f"torch {version}: {result}")
    return 1 if any(result != "passed" for result in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
