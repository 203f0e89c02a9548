"""WeightAverage: a running mean of a model's weights, with which epochs are evaluated and the model is saved."""

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

    The decay is smaller in the first steps, at most ``t / (t + 9)`` in step t, so that the initial weights are soon
    forgotten. A checkpoint stores the average as its model, and beside it the trained weights to resume from.

    Args:
        model: the model whose parameters and floating-point buffers (batch normalisation's statistics) are averaged.
        decay: a number in (0, 1); the mean reaches about ``1 / (1 - decay)`` steps back.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be in (0, 1), got {decay!r}")
        self.model, self.decay = model, decay
        self.weights = {name: weight.detach().clone() for name, weight in self._averaged()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the average with the weights after step ``step``, counted from 1."""
        decay = min(self.decay, step / (step + _WARMUP_STEPS))
        for name, weight in self._averaged():
            self.weights[name].lerp_(weight, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[dict[str, Tensor]]:
        """Gives the model the averaged weights inside the context, and yields the trained weights meanwhile."""
        self._swap()
        try:
            yield self.weights
        finally:
            self._swap()

    def save_trained(self, folder: Path) -> None:
        """Writes the trained weights to a checkpoint's folder; called inside `in_place`, when `weights` holds them."""
        save_file({name: weight.contiguous() for name, weight in self.weights.items()}, folder / TRAINED_WEIGHTS)

    def resume(self, folder: Path) -> None:
        """Takes the average from the model loaded from a checkpoint, and loads the trained weights into the model."""
        trained = load_file(folder / TRAINED_WEIGHTS)
        with torch.no_grad():
            for name, weight in self._averaged():
                self.weights[name].copy_(weight)
                weight.copy_(trained[name])

    def _averaged(self) -> Iterator[tuple[str, Tensor]]:
        """Yields the parameters and the floating-point buffers, such as batch normalisation's statistics."""
        yield from self.model.named_parameters()
        yield from ((name, buffer) for name, buffer in self.model.named_buffers() if buffer.is_floating_point())

    def _swap(self) -> None:
        for name, weight in self._averaged():
            weight.data, self.weights[name] = self.weights[name], weight.data
