"""The machine that a run was made on, as the result files name it."""

import os
import platform

import torch


def machine() -> str:
    """Returns the architecture, the number of cores, and that of torch's threads."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
