"""Builds the kernels against LibTorch's stable ABI: one binary per kind of device, for every torch >= 2.10.

The CPU kernels need g++. The CUDA kernels are built where nvcc is on the PATH, even when the installed torch has no
CUDA; without nvcc only the CPU kernels are built, and the build says so. MULTIFUSE_SKIP_BUILD=1 installs without
kernels: plain torch runs instead.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
# torch 2.10; TORCH_STABLE_ONLY rejects headers of torch that are not part of the stable ABI.
COMMON = ["-std=c++20", "-O3", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
CPU_FLAGS = ["-fPIC", "-fvisibility=hidden", "-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno", "-Wall"]
CUDA_ARCHITECTURES = ("80", "90", "100")  # those of them that nvcc knows


class BuildKernels(build_ext):
    """Compiles each extension to ``multifuse/libmultifuse_<kind>.so``, a plain shared library that torch loads."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        try:
            import torch
            from torch.utils.cpp_extension import include_paths
        except ImportError:
            sys.exit(
                "multifuse: the kernels are built against an installed torch, and there is none in this environment: "
                "install torch first, then multifuse with --no-build-isolation"
            )
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        command = _cuda_compiler() if ext.name.endswith("cuda") else ["g++", *COMMON, *CPU_FLAGS]
        command += ["-shared", f"-I{CSRC}", *(f"-I{path}" for path in include_paths()), *map(str, ext.sources)]
        # torch's CUDA symbols are resolved when the library is loaded, so that a CPU-only torch can build it.
        command += [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10", "-o", str(output)]
        _compile(command)


class StableWheel(bdist_wheel):
    """Tags the wheel for every Python 3: nothing in it depends on the interpreter."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def _compile(command: list[str]) -> None:
    advice = "MULTIFUSE_SKIP_BUILD=1 installs multifuse without kernels: plain torch runs instead"
    if shutil.which(command[0]) is None:
        sys.exit(f"multifuse: the compiler {command[0]} is not on the PATH: install it, or {advice}")
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"multifuse: {command[0]} could not compile the kernels, see its messages above; {advice}")


def _cuda_compiler() -> list[str]:
    known = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    built = [architecture for architecture in CUDA_ARCHITECTURES if f"sm_{architecture}" in known]
    targets = [f"-gencode=arch=compute_{architecture},code=sm_{architecture}" for architecture in built]
    targets.append(f"-gencode=arch=compute_{built[-1]},code=compute_{built[-1]}")
    return ["nvcc", *COMMON, "-DUSE_CUDA", *targets, "-Xcompiler", "-fPIC,-fvisibility=hidden"]


def _kernels() -> list[Extension]:
    if os.environ.get("MULTIFUSE_SKIP_BUILD", "") not in ("", "0"):
        return []
    headers = [str(path) for path in sorted(CSRC.glob("*.h"))]
    sources = [str(path) for path in sorted(CSRC.glob("cpu_*.cpp"))]
    found = [Extension("multifuse.libmultifuse_cpu", sources, depends=headers)]
    if shutil.which("nvcc"):
        found.append(Extension("multifuse.libmultifuse_cuda", [str(CSRC / "cuda.cu")], depends=headers))
    else:
        print("multifuse: nvcc is not on the PATH, so only the CPU kernels are built", file=sys.stderr)
    return found


setup(ext_modules=_kernels(), cmdclass={"build_ext": BuildKernels, "bdist_wheel": StableWheel})
