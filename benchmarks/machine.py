"""What runs here: the machine and the commit, as the result files name them."""

import os
import platform
import subprocess
from pathlib import Path

import torch


def machine() -> str:
    """Returns the processor, the number of cores, and that of torch's threads."""
    return f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def processor() -> str:
    """Returns the processor's model and its widest vectors, which the model's name need not determine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model} {torch.backends.cpu.get_cpu_capability()}"


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


COMMIT = _commit()
"""The commit of the checkout when the program started, with "-dirty" if files differ; ``None`` outside of one."""
