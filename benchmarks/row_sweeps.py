"""Measures the sweeps over a row that make up the projection's forward pass on a CPU, outside the library.

    python -m benchmarks.row_sweeps

Compiles `row_sweeps.cpp` with the kernels' headers for this processor's widest vectors, and prints nanoseconds.
"""

import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ["-std=c++20", "-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno", "-fopenmp-simd"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / SOURCE.stem
        headers = SOURCE.parents[1] / "csrc"
        subprocess.run(["g++", *FLAGS, f"-I{headers}", str(SOURCE), "-o", str(program)], check=True)
        subprocess.run([str(program)], check=True)


if __name__ == "__main__":
    main()
