"""WidthAdapters: tokens of different widths in one common width, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from multifuse._internal.initialisation import XavierLinear
from multifuse._internal.module_keys import module_key


class WidthAdapters(nn.Module):
    """Maps the tokens of every modality to a common width, ``LayerNorm(h W_in^m)``, and updates back by ``W_out^m``.

    Args:
        widths: by modality, the width of its tokens.
        dim: the common width.

    Shape:
        ``into(name, tokens)``: (B, T, width) -> (B, T, dim); ``back(name, update)``: (B, T, dim) -> (B, T, width).
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.inward = nn.ModuleDict(
            {
                module_key(name): nn.Sequential(
                    XavierLinear(width, dim, device=device, dtype=dtype), nn.LayerNorm(dim, device=device, dtype=dtype)
                )
                for name, width in widths.items()
            }
        )
        self.outward = nn.ModuleDict(
            {
                module_key(name): XavierLinear(dim, width, bias=False, device=device, dtype=dtype)
                for name, width in widths.items()
            }
        )

    def into(self, name: str, tokens: Tensor) -> Tensor:
        """Maps the tokens of a modality to the common width."""
        mapped: Tensor = self.inward[module_key(name)](tokens)
        return mapped

    def back(self, name: str, update: Tensor) -> Tensor:
        """Maps what is added to the tokens of a modality to their own width."""
        mapped: Tensor = self.outward[module_key(name)](update)
        return mapped
