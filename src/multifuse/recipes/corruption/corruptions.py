"""Corruptions of a batch's tokens: noisy features, dropped tokens, and one modality delayed.

Each corruption takes inputs and masks per modality and a generator, and returns new inputs and masks. It does not
modify its arguments, and at level 0 it returns them. Features are (B, T, D), token ids (B, T).
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
    """Changes a batch; all randomness comes from the generator."""

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]: ...


@dataclass(frozen=True)
class FeatureNoise:
    """Adds Gaussian noise to every real token of every feature sequence; token ids stay as they are.

    Raises:
        ValueError: if the level is not finite and >= 0.
    """

    level: float
    """Standard deviation of the noise, relative to that of each feature."""
    deviations: Mapping[str, Tensor] = field(default_factory=dict)
    """Standard deviation of each feature, (D,) per modality; 1 for a modality that is not listed."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and self.level >= 0):
            raise ValueError(f"level must be finite and >= 0, got {self.level!r}")

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]:
        if self.level == 0:
            return inputs, mask
        noisy = {name: self._noisy(name, values, mask.get(name), generator) for name, values in inputs.items()}
        return noisy, mask

    def _noisy(self, name: str, values: Any, real: Tensor | None, generator: torch.Generator) -> Any:
        if not isinstance(values, Tensor) or not values.is_floating_point():
            return values
        noise = self.level * torch.randn(values.shape, generator=generator, dtype=values.dtype)
        if name in self.deviations:
            noise = noise * self.deviations[name].to(values.dtype)
        noisy = values + noise.to(values.device)
        return noisy if real is None else torch.where(real.unsqueeze(-1), noisy, values)


@dataclass(frozen=True)
class TokenDrop:
    """Masks every real token with probability ``rate``.

    If the rate is below 1, a sample keeps at least one token of every modality that it has.

    Raises:
        ValueError: if the rate is outside [0, 1].
    """

    rate: float

    def __post_init__(self) -> None:
        checks.in_range("rate", self.rate, 0.0, 1.0)

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]:
        if self.rate == 0:
            return inputs, mask
        return inputs, {name: self._kept(values, mask.get(name), generator) for name, values in inputs.items()}

    def _kept(self, values: Any, real: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """Returns the mask (B, T) of the tokens that are kept."""
        if values is None:
            return real
        numbers = torch.rand(values.shape[:2], generator=generator).to(values.device)
        real = torch.ones_like(numbers, dtype=torch.bool) if real is None else real
        kept = real & (numbers >= self.rate)
        if self.rate < 1 and numbers.shape[1]:
            # Where no token is left, keep the real one that a rising rate would drop last.
            last = numbers.masked_fill(~real, -1.0).argmax(dim=1, keepdim=True)
            all_dropped = real.any(dim=1, keepdim=True) & ~kept.any(dim=1, keepdim=True)
            kept = kept | torch.zeros_like(kept).scatter(1, last, all_dropped)
        return kept


@dataclass(frozen=True)
class TimeShift:
    """Delays one modality: inserts ``tokens`` masked tokens before its own, of which none is lost.

    Raises:
        ValueError: if ``tokens`` is not an integer >= 0, or the batch lacks the modality.
    """

    modality: str
    tokens: int

    def __post_init__(self) -> None:
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, int) or self.tokens < 0:
            raise ValueError(f"tokens must be an integer >= 0, got {self.tokens!r}")

    def __call__(self, inputs: Inputs, mask: Masks, generator: torch.Generator) -> tuple[Inputs, Masks]:
        values, real = inputs.get(self.modality), mask.get(self.modality)
        if values is None:
            present = [name for name, tensor in inputs.items() if tensor is not None]
            raise ValueError(f"modality must be one of {present}, got {self.modality!r}")
        if self.tokens == 0:
            return inputs, mask
        real = values.new_ones(values.shape[:2], dtype=torch.bool) if real is None else real
        return {**inputs, self.modality: self._delayed(values)}, {**mask, self.modality: self._delayed(real)}

    def _delayed(self, values: Tensor) -> Tensor:
        return torch.cat([values.new_zeros(values.shape[0], self.tokens, *values.shape[2:]), values], dim=1)
