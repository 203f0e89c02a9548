"""What `from multifuse import IntraCED` adds to `import torch`, each in a fresh process, in turns."""

import statistics
import subprocess
import sys

SECONDS = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
STATEMENTS = ("import torch", "from multifuse import IntraCED")


def added_seconds(rounds: int = 5) -> float:
    """The difference of the medians, in seconds."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement, values in times.items():
            done = subprocess.run(
                [sys.executable, "-c", SECONDS.format(statement)], capture_output=True, text=True, check=True
            )
            values.append(float(done.stdout))
    before, after = (statistics.median(values) for values in times.values())
    return after - before
