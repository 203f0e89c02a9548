"""What the sweeps of a row cost, of which the projection's forward on a CPU is made, with no library around.

    python -m benchmarks.row_sweeps

Compiles `row_sweeps.cpp` with the kernels' own headers, for this processor's widest vectors, and prints nanoseconds.
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
