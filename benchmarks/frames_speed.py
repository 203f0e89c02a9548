"""Compares Cholesky QR with geotorch's parametrisations: twelve orthonormal (128, 64) frames, forward and backward."""

from collections.abc import Callable, Iterator

import geotorch
import torch
from torch import Tensor, nn

from benchmarks.timing import Comparison, in_turns
from multifuse.layers.frames import orthonormal_columns

COUNT, DIM, RANK = 12, 128, 64


class Frames(nn.Module):
    """Unconstrained matrices, on which a parametrisation may impose orthonormal columns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(COUNT, DIM, RANK) / DIM**0.5)


def compare(seconds: float) -> Iterator[Comparison]:
    """Compares our default with geotorch's exponential and Cayley maps, and with no constraint."""
    torch.manual_seed(0)
    functions = {"ours": _call(Frames(), orthonormal_columns)}
    for triv in ("expm", "cayley"):
        frames = Frames()
        geotorch.orthogonal(frames, "weight", triv=triv)
        functions[f"geotorch, {triv}"] = _call(frames, lambda weight: weight)
    functions["no constraint"] = _call(Frames(), lambda weight: weight * 1.0)
    times = in_turns(functions, seconds)
    for peer in list(functions)[1:]:
        yield Comparison(f"{COUNT} frames of ({DIM}, {RANK}), forward + backward", peer, times["ours"], times[peer])


def _call(frames: Frames, frame_of: Callable[[Tensor], Tensor]) -> Callable[[], object]:
    direction = torch.randn(COUNT, DIM, RANK)
    return lambda: (frame_of(frames.weight) * direction).sum().backward()
