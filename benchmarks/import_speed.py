"""What `import multifuse` adds to `import torch`, each in a fresh process, in turns."""

import statistics
import subprocess
import sys

SECONDS = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def added_seconds(rounds: int = 5) -> float:
    """The difference of the medians, in seconds."""
    times: dict[str, list[float]] = {"torch": [], "multifuse": []}
    for _ in range(rounds):
        for module, values in times.items():
            done = subprocess.run(
                [sys.executable, "-c", SECONDS.format(module)], capture_output=True, text=True, check=True
            )
            values.append(float(done.stdout))
    return statistics.median(times["multifuse"]) - statistics.median(times["torch"])
