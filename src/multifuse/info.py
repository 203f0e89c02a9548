"""multifuse info: versions, build and paths, for bug reports."""

import argparse
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

import multifuse
from multifuse.ops import backend, native

_NOT_BUILT = {
    "cpu": f"not built, so that plain torch runs. To build them: {native.HOW_TO_BUILD}",
    "cuda": "not built: they need nvcc on the PATH during the build, as well",
}
_PACKAGES = ("geotorch", "transformers", "numpy", "accelerate", "scikit-learn", "matplotlib")


def lines() -> list[str]:
    """The report, line by line."""
    report = [
        f"multifuse {multifuse.__version__} at {Path(multifuse.__file__).parent}",
        f"python {platform.python_version()} on {platform.platform()}",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        f"torch CUDA {torch.version.cuda or 'none'}, devices: {torch.cuda.device_count()}",
    ]
    report += [f"{name} {_version(name)}" for name in _PACKAGES]
    for kind in ("cpu", "cuda"):
        report.append(f"{kind} kernels: {native.binary(kind) or _NOT_BUILT[kind]}")
    report.append(f"{native.FALLBACK_VARIABLE}: {'set' if native.forced_fallback() else 'not set'}")
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    report += [f"project_capped_simplex on {device} runs: {backend(device)}" for device in devices]
    return report


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main(given: Sequence[str] | None = None) -> int:
    """Prints the report."""
    argparse.ArgumentParser(prog="multifuse info", description=__doc__).parse_args(given)
    print("\n".join(lines()))
    return 0
