"""WeightAverage: a running mean of a model's weights. Epochs are judged by it, and it is the model that is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

TRAINED_WEIGHTS = "trained_weights.safetensors"
_WARMUP_STEPS = 9


class WeightAverage:
    """Keeps ``average <- decay * average + (1 - decay) * weights``, updated after every step.

    The first steps count more, so that the initial weights are soon forgotten: step t decays by at most
    ``t / (t + 9)``. A checkpoint holds the average as its model, and the weights that training goes on from beside it.

    Args:
        model: whose parameters are averaged, and its batch normalisation's statistics with them.
        decay: in (0, 1); the mean looks about ``1 / (1 - decay)`` steps back.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie in (0, 1), got {decay!r}")
        self.model, self.decay = model, decay
        self.weights = {name: weight.detach().clone() for name, weight in self._averaged()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after step number ``step`` (the first is 1)."""
        decay = min(self.decay, step / (step + _WARMUP_STEPS))
        for name, weight in self._averaged():
            self.weights[name].lerp_(weight, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[dict[str, Tensor]]:
        """Within, the model's weights are the average, and the value is the weights that training goes on from."""
        self._swap()
        try:
            yield self.weights
        finally:
            self._swap()

    def save_trained(self, folder: Path) -> None:
        """Writes the weights that training goes on from; called within `in_place`, into a checkpoint being made."""
        save_file({name: weight.contiguous() for name, weight in self.weights.items()}, folder / TRAINED_WEIGHTS)

    def resume(self, folder: Path) -> None:
        """Takes the average from the model as loaded from a checkpoint, and loads the trained weights beside it."""
        trained = load_file(folder / TRAINED_WEIGHTS)
        with torch.no_grad():
            for name, weight in self._averaged():
                self.weights[name].copy_(weight)
                weight.copy_(trained[name])

    def _averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters, and batch normalisation's statistics, which belong to them."""
        yield from self.model.named_parameters()
        yield from ((name, buffer) for name, buffer in self.model.named_buffers() if buffer.is_floating_point())

    def _swap(self) -> None:
        for name, weight in self._averaged():
            weight.data, self.weights[name] = self.weights[name], weight.data
