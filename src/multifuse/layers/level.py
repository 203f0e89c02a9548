"""Level: the tokens of one modality at one level, mapped to the common width, with positions."""

import math

import torch
from torch import Tensor, nn

from multifuse._internal.initialisation import DrawsOwnParameters


class Level(DrawsOwnParameters):
    """``LayerNorm(Z W + P)`` of one modality at one level."""

    def __init__(
        self,
        width: int,
        dim: int,
        positions: str,
        max_positions: int,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dim, device=device, dtype=dtype)
        self.position = Positions(max_positions, dim, device=device, dtype=dtype) if positions == "learned" else None
        self.norm = nn.LayerNorm(dim, device=device, dtype=dtype)

    def forward(self, sequence: Tensor, padding: Tensor | None) -> Tensor:
        hidden: Tensor = self.projection(sequence)
        hidden = self.norm(hidden + self.positions(hidden.shape[1], hidden))
        return hidden if padding is None else hidden.masked_fill(padding, 0.0)

    def positions(self, length: int, like: Tensor) -> Tensor:
        """Returns P, (T, d)."""
        if self.position is None:
            return sinusoidal_positions(length, like.shape[-1], like.device).to(like.dtype)
        if length > self.position.num_embeddings:
            raise ValueError(
                f"inputs have {length} tokens, more than max_positions={self.position.num_embeddings}; "
                "use positions='sinusoidal' for longer sequences"
            )
        learned: Tensor = self.position(length)
        return learned


class Positions(nn.Embedding):
    """A learned positional embedding: the number of tokens T -> (T, d)."""

    def forward(self, length: int) -> Tensor:  # type: ignore[override]
        return self.weight[:length]

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)


def sinusoidal_positions(length: int, dim: int, device: torch.device) -> Tensor:
    """Returns the fixed embedding of Vaswani et al. (2017), section 3.5: (length, dim), sines beside cosines."""
    half = (dim + 1) // 2
    frequency = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / half))
    angle = torch.arange(length, device=device).unsqueeze(-1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :dim]
