"""Which devices prefer a few large operators to many small ones."""

import torch


def is_gpu(device: torch.device) -> bool:
    """Tells whether operators are launched on a CUDA device: few large ones are fast there, small ones on a CPU."""
    return device.type == "cuda"
