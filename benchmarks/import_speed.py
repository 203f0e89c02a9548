"""Measures how much time `from multifuse import IntraCED` takes beyond `import torch`, in fresh processes by turns."""

import statistics
import subprocess
import sys

SECONDS = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
STATEMENTS = ("import torch", "from multifuse import IntraCED")


def added_seconds(rounds: int = 5) -> float:
    """Returns the difference of the medians in seconds."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement, values in times.items():
            process = subprocess.run(
                [sys.executable, "-c", SECONDS.format(statement)], capture_output=True, text=True, check=True
            )
            values.append(float(process.stdout))
    torch_only, with_multifuse = (statistics.median(values) for values in times.values())
    return with_multifuse - torch_only
