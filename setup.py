"""Builds the kernels against LibTorch's stable ABI: one binary per kind of device, for every torch >= 2.10.

The CPU kernels need g++ and an installed torch, of which only the headers and libraries are used. Where one of the two
is missing, multifuse is installed without kernels, the build says so in one line, and plain torch runs instead. The
CUDA kernels are built where nvcc is on the PATH, even when the installed torch has no CUDA.

MULTIFUSE_REQUIRE_KERNELS=1 makes it an error that kernels cannot be built; MULTIFUSE_SKIP_BUILD=1 builds none.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
# torch 2.10; TORCH_STABLE_ONLY rejects headers of torch that are not part of the stable ABI.
COMMON = ["-std=c++20", "-O3", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
CPU_FLAGS = ["-fPIC", "-fvisibility=hidden", "-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno", "-Wall"]
CUDA_ARCHITECTURES = ("80", "90", "100")  # those of them that nvcc knows
BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}


class BuildKernels(build_ext):
    """Compiles each extension to ``multifuse/libmultifuse_<kind>.so``, a plain shared library that torch loads."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or True  # the extensions at the same time

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        torch, output = _torch(), Path(self.get_ext_fullpath(ext.name))
        assert torch is not None
        output.parent.mkdir(parents=True, exist_ok=True)
        command = _cuda_compiler() if ext.name.endswith("cuda") else ["g++", *COMMON, *CPU_FLAGS]
        command += ["-shared", f"-I{CSRC}", f"-I{torch / 'include'}", *map(str, ext.sources)]
        # libstdc++ comes before torch, which exports some of its functions, too, and may cease to. torch's CUDA symbols
        # are resolved when the library is loaded, so that a CPU-only torch can build it.
        command += ["-lstdc++", f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10", "-o", str(output)]
        _compile(command)


class StableWheel(bdist_wheel):
    """Tags the wheel for every Python 3: nothing in it depends on the interpreter."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def _compile(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        sys.exit(
            f"multifuse: {command[0]} could not compile the kernels, see its messages above; MULTIFUSE_SKIP_BUILD=1 "
            "installs multifuse without kernels: plain torch runs instead"
        )


def _torch() -> Path | None:
    """Returns the folder of the installed torch, which is not imported: its own dependencies need not be there."""
    spec = find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def _cuda_compiler() -> list[str]:
    known = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    built = [architecture for architecture in CUDA_ARCHITECTURES if f"sm_{architecture}" in known]
    targets = [f"-gencode=arch=compute_{architecture},code=sm_{architecture}" for architecture in built]
    targets.append(f"-gencode=arch=compute_{built[-1]},code=compute_{built[-1]}")
    return ["nvcc", *COMMON, "-DUSE_CUDA", "--threads=0", *targets, "-Xcompiler", "-fPIC,-fvisibility=hidden"]


def _obstacle() -> str | None:
    """Says why kernels cannot be built here, if so."""
    if _torch() is None:
        return (
            "there is no torch in this environment (pip's isolated builds have none: install torch first, then "
            "multifuse with --no-build-isolation)"
        )
    if shutil.which("g++") is None:
        return "the compiler g++ is not on the PATH"
    return None


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def _say(line: str) -> None:
    if BUILDING.intersection(sys.argv):  # the other commands of setuptools read this file, too
        print(f"multifuse: {line}", file=sys.stderr)


def _kernels() -> list[Extension]:
    if _is_set("MULTIFUSE_SKIP_BUILD"):
        return []
    obstacle = _obstacle()
    if obstacle:
        if _is_set("MULTIFUSE_REQUIRE_KERNELS") and BUILDING.intersection(sys.argv):
            sys.exit(f"multifuse: the kernels cannot be built, because {obstacle}")
        _say(f"no kernels are built, because {obstacle}; plain torch runs instead")
        return []
    headers = [str(path) for path in sorted(CSRC.glob("*.h"))]
    sources = [str(path) for path in sorted(CSRC.glob("cpu_*.cpp"))]
    found = [Extension("multifuse.libmultifuse_cpu", sources, depends=headers)]
    if shutil.which("nvcc"):
        found.append(Extension("multifuse.libmultifuse_cuda", [str(CSRC / "cuda_projection.cu")], depends=headers))
    else:
        _say("nvcc is not on the PATH, so only the CPU kernels are built")
    return found


setup(ext_modules=_kernels(), cmdclass={"build_ext": BuildKernels, "bdist_wheel": StableWheel})
