"""Finds and loads the compiled kernels; where there are none, plain torch runs."""

import ctypes
import os
import warnings
from functools import cache
from pathlib import Path

import torch

FALLBACK_VARIABLE = "MULTIFUSE_FORCE_FALLBACK"
HOW_TO_BUILD = (
    "pip install --no-build-isolation --force-reinstall --no-deps . in a checkout of multifuse, where torch and g++ "
    "are installed (and nvcc is on the PATH, for cuda)"
)
OLDEST_CAPABILITY = (8, 0)
_FOLDER = Path(__file__).resolve().parent.parent


def forced_fallback() -> bool:
    return os.environ.get(FALLBACK_VARIABLE, "") not in ("", "0")


def binary(kind: str) -> Path | None:
    """Returns the compiled library of a device kind (``"cpu"`` or ``"cuda"``) in this installation, or ``None``."""
    path = _FOLDER / f"libmultifuse_{kind}.so"
    return path if path.is_file() else None


@cache
def load(kind: str) -> bool:
    """Loads the kernels of a device kind once; False, with one warning, where they are missing or do not load."""
    if forced_fallback():
        return False
    path = binary(kind)
    if path is None:
        return _warn(kind, "was not built")
    try:
        if kind == "cuda":  # its symbols live in a library that torch itself has already loaded
            ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"), mode=ctypes.RTLD_GLOBAL)
        torch.ops.load_library(str(path))
    except OSError as error:
        return _warn(kind, f"did not load ({error})")
    return True


def _warn(kind: str, reason: str) -> bool:
    warnings.warn(
        f"multifuse's compiled {kind} kernels: the binary {reason}; the slower plain-torch path runs instead. "
        f"To build it: {HOW_TO_BUILD}. Or set {FALLBACK_VARIABLE}=1 to choose the plain path silently.",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def load_all() -> None:
    """Loads every kind of kernel that this machine can run."""
    load("cpu")
    if _has_supported_gpus():
        load("cuda")


def _has_supported_gpus() -> bool:
    """The CUDA library serves a process as a whole, so every visible device must be able to run it."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return False
    capabilities = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
    return min(capabilities) >= OLDEST_CAPABILITY


def backend(device: torch.device | str) -> str:
    """Returns which path runs on ``device``: ``"cpp"``, ``"cuda"`` or ``"torch"`` (the portable one)."""
    kind = torch.device(device).type
    if kind == "cpu":
        return "cpp" if load("cpu") else "torch"
    if kind == "cuda" and _has_supported_gpus():
        return "cuda" if load("cuda") else "torch"
    return "torch"
