"""What can go wrong with a batch's tokens: noise on features, tokens that are lost, a modality that is late.

Each corruption takes inputs and masks by modality and a generator, and gives new ones; the given ones are left alone,
and a corruption of level 0 gives them back. Features are (B, T, D), token ids (B, T).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from multifuse._internal import checks

Inputs = Mapping[str, Any]
Masks = Mapping[str, Tensor | None]


class Corruption(Protocol):
    """Changes a batch, at random by the generator's numbers alone."""

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]: ...


@dataclass(frozen=True)
class FeatureNoise:
    """Adds Gaussian noise to every real token of every feature sequence; token ids have none.

    Raises:
        ValueError: a level that is not finite and >= 0.
    """

    level: float
    """The noise's deviation, relative to each feature's own."""
    deviations: Mapping[str, Tensor] = field(default_factory=dict)
    """By modality (D,), each feature's standard deviation; 1 for a modality that it lacks."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and self.level >= 0):
            raise ValueError(f"level must be finite and >= 0, got {self.level!r}")

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]:
        if self.level == 0:
            return inputs, mask
        noised = {name: self._noised(name, values, mask.get(name), generator) for name, values in inputs.items()}
        return noised, mask

    def _noised(self, name: str, values: Any, real: Tensor | None, generator: torch.Generator) -> Any:
        if not isinstance(values, Tensor) or not values.is_floating_point():
            return values
        noise = self.level * torch.randn(values.shape, generator=generator, dtype=values.dtype)
        if name in self.deviations:
            noise = noise * self.deviations[name].to(values.dtype)
        changed = values + noise.to(values.device)
        return changed if real is None else torch.where(real.unsqueeze(-1), changed, values)


@dataclass(frozen=True)
class TokenDrop:
    """Masks every real token with probability ``rate``; a sample keeps one of a modality that it has, unless rate is 1.

    Raises:
        ValueError: a rate outside [0, 1].
    """

    rate: float

    def __post_init__(self) -> None:
        checks.in_range("rate", self.rate, 0.0, 1.0)

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]:
        if self.rate == 0:
            return inputs, mask
        return inputs, {name: self._left(values, mask.get(name), generator) for name, values in inputs.items()}

    def _left(self, values: Any, real: Tensor | None, generator: torch.Generator) -> Tensor | None:
        if values is None:
            return real
        numbers = torch.rand(values.shape[:2], generator=generator).to(values.device)
        real = torch.ones_like(numbers, dtype=torch.bool) if real is None else real
        left = real & (numbers >= self.rate)
        if self.rate < 1 and numbers.shape[1]:
            # The token that a higher rate would take last; where none is real, none is kept.
            last = numbers.masked_fill(~real, -1.0).argmax(dim=1, keepdim=True)
            lost = real.any(dim=1, keepdim=True) & ~left.any(dim=1, keepdim=True)
            left = left | torch.zeros_like(left).scatter(1, last, lost)
        return left


@dataclass(frozen=True)
class TimeShift:
    """Delays one modality against the others: its tokens come ``tokens`` later, masked ones before them; none is lost.

    Raises:
        ValueError: ``tokens`` that is no integer >= 0, a modality that the batch lacks.
    """

    modality: str
    tokens: int

    def __post_init__(self) -> None:
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, int) or self.tokens < 0:
            raise ValueError(f"tokens must be an integer >= 0, got {self.tokens!r}")

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]:
        values, real = inputs.get(self.modality), mask.get(self.modality)
        if values is None:
            present = [name for name, own in inputs.items() if own is not None]
            raise ValueError(f"modality must be one of {present}, got {self.modality!r}")
        if self.tokens == 0:
            return inputs, mask
        real = values.new_ones(values.shape[:2], dtype=torch.bool) if real is None else real
        return {**inputs, self.modality: self._late(values)}, {**mask, self.modality: self._late(real)}

    def _late(self, values: Tensor) -> Tensor:
        return torch.cat([values.new_zeros(values.shape[0], self.tokens, *values.shape[2:]), values], dim=1)
