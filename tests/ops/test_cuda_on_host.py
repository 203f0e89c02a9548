"""The CUDA kernels of the projection, compiled for the CPU: their results, and what sanitizers find, without a GPU.

``cuda_on_host`` holds stand-ins for CUDA's headers, with which g++ compiles the kernels. AddressSanitizer and UBSan
look for what compute-sanitizer's memcheck finds on a GPU, and ThreadSanitizer for what racecheck finds. The program
also ends where threads wait for each other in vain or in different places, which is what synccheck reports.
"""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.ops.row_cases import RowCase, row_case
from tests.paths import ROOT

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
SOURCES = Path(__file__).parent / "cuda_on_host"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # in the order of main.cpp
ADDRESS, THREAD = "address,undefined", "thread"
FLAGS = ["-std=c++20", "-O1", "-g", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
FLAGS += re.findall(r"-DTORCH_\w+(?:=\w+)?", (ROOT / "setup.py").read_text())
OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=0",  # it would move variables away from the stacks of the fibers
    "TSAN_OPTIONS": "atexit_sleep_ms=0 halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1",
}
IN_WARPS = (1, 32, 33, 64, 65, 128, 129, 256, 257, 512)
IN_BLOCKS = (513, 4096, 4097, 16384, 16385, 16386)  # two of each kernel: one with a mask, one without

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on the PATH")


def compiled(sanitizer: str, folder: Path) -> Path:
    """Compiles the kernels, with their launches written as calls, because ``<<<>>>`` is not C++."""
    rows = (ROOT / "csrc/cuda_projection_rows.h").read_text()
    rows = re.sub(r"(\w+<[\w<>, ]+?>)<<<(.+?), 0, stream>>>\((\w)\)", r"on_host::launch(\2, \1, \3)", rows)
    assert "<<<" not in rows
    (folder / "rows_on_host.h").write_text(rows)
    program, fibers = folder / "kernels", folder / "fibers.o"
    folders = (SOURCES, folder, ROOT / "csrc", Path(torch.__file__).parent / "include")
    includes = [f"-I{path}" for path in folders]
    build("-std=c++20", "-O2", "-Wall", "-c", SOURCES / "fibers.cpp", "-o", fibers)
    build(*FLAGS, f"-fsanitize={sanitizer}", *includes, SOURCES / "main.cpp", fibers, "-o", program)
    return program


def build(*arguments: str | Path) -> None:
    subprocess.run(["g++", *arguments], check=True)


@pytest.fixture(scope="module", params=[ADDRESS, THREAD])
def sanitizer(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def run(sanitizer: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("cuda_on_host")
    # With much randomness in its addresses, a program may find no room for the memory of an older sanitizer.
    fixed_addresses = ["setarch", "-R"] if succeeds("setarch", "-R", "true") else []
    probe, source = folder / "probe", folder / "probe.cpp"
    source.write_text("#include <ucontext.h>\nint main() { ucontext_t context; return getcontext(&context); }\n")
    if not succeeds("g++", f"-fsanitize={sanitizer}", source, "-o", probe) or not succeeds(*fixed_addresses, probe):
        pytest.skip(f"programs with -fsanitize={sanitizer} cannot be built or run here")
    program = compiled(sanitizer, folder)

    def run_program(*arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        command: list[str | Path] = [*fixed_addresses, program, *arguments]
        environment = os.environ | OPTIONS
        return subprocess.run(command, input=given, env=environment, capture_output=True, check=False, timeout=300)

    return run_program


def succeeds(*command: str | Path) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def content(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def written(case: RowCase) -> bytes:
    header = struct.pack("=4q", DTYPES.index(case.z.dtype), *case.z.shape, case.mask is not None)
    return header + b"".join(content(tensor) for tensor in case[:5] if tensor is not None)


def read(output: bytes, cases: Iterable[RowCase]) -> Iterable[tuple[RowCase, tuple[Tensor, ...]]]:
    """Yields every case with its results."""
    rest = torch.frombuffer(bytearray(output), dtype=torch.uint8)
    for case in cases:
        sizes = [like.nbytes for like in case.expected]
        *parts, rest = rest.split([*sizes, len(rest) - sum(sizes)])
        yield case, tuple(part.clone().view(like.dtype).view(like.shape) for part, like in zip(parts, case.expected))
    assert len(rest) == 0


def cases_for(sanitizer: str) -> list[RowCase]:
    """Returns cases for every kernel; blocks of 1,024 threads are slow, most of all under ThreadSanitizer."""
    cases = [row_case(length, dtype, masked) for length in IN_WARPS for dtype in DTYPES for masked in (False, True)]
    for dtype in DTYPES if sanitizer == ADDRESS else DTYPES[:1]:
        cases += [row_case(length, dtype, is_masked=bool(index % 2)) for index, length in enumerate(IN_BLOCKS)]
    return cases


def test_every_kernel_gives_what_plain_torch_gives_in_two_orders_and_no_sanitizer_objects(
    run: Run, sanitizer: str
) -> None:
    cases = cases_for(sanitizer)
    given = b"".join(map(written, cases))
    orders = [run(order, given=given) for order in ("1", "2")]
    for done in orders:
        assert done.returncode == 0, done.stderr.decode()
    assert orders[0].stdout == orders[1].stdout
    for case, results in read(orders[0].stdout, cases):
        case.check(results)


FAULTS = {
    "no barrier": {THREAD: "data race"},
    "no barrier between two": {THREAD: "data race"},
    "no barrier before the next write": {THREAD: "data race"},
    "a shuffle as a barrier": {THREAD: "data race"},
    "beyond the end": {ADDRESS: "heap-buffer-overflow"},
    "beyond shared memory": {ADDRESS: "out of bounds"},
    "two barriers": {ADDRESS: "in different lines", THREAD: "in different lines"},
    "a barrier of one warp": {ADDRESS: "never come", THREAD: "never come"},
}


def test_a_correct_kernel_passes_and_every_fault_is_found(run: Run, sanitizer: str) -> None:
    correct = run("1", "none")
    assert correct.returncode == 0, correct.stderr.decode()
    for fault, found in FAULTS.items():
        if sanitizer in found:
            done = run("1", fault)
            assert done.returncode != 0, fault
            assert found[sanitizer] in done.stderr.decode(), fault
