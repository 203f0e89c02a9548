"""The tokens of several modalities one after the other in one dimension, so that one operator serves all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Packing(NamedTuple):
    """Where the tokens of each modality lie among T: ``lengths`` of them, by modality, in the order of the names."""

    lengths: dict[str, int]

    @property
    def total(self) -> int:
        """T."""
        return sum(self.lengths.values())

    def parts(self, packed: Tensor, dim: int) -> dict[str, Tensor]:
        """Returns views of each modality's tokens, which lie in the dimension ``dim``."""
        return dict(zip(self.lengths, packed.split(list(self.lengths.values()), dim=dim), strict=True))

    def rows(self, packed: Tensor) -> Tensor:
        """Gives each modality a row of its own: (..., T) -> (..., M, width), 0 beyond its tokens."""
        if are_equal(list(self.lengths.values())):
            rows: Tensor = packed.unflatten(-1, (len(self.lengths), -1))
            return rows
        # A compiler would have another graph for each order of the lengths if the longest had to be found.
        width = self.total if torch.compiler.is_compiling() else max(self.lengths.values())
        parts = zip(self.parts(packed, -1).values(), self.lengths.values(), strict=True)
        return torch.stack([pad(part, (0, width - length)) for part, length in parts], dim=-2)

    def rows_mask(self, mask: Tensor | None, device: torch.device) -> Tensor | None:
        """Returns the mask of `rows`, given that of the tokens; ``None`` if all entries are real tokens."""
        if mask is None and not are_equal(list(self.lengths.values())):
            mask = torch.ones(self.total, dtype=torch.bool, device=device)
        return None if mask is None else self.rows(mask)

    def from_rows(self, rows: Tensor) -> Tensor:
        """Undoes `rows`: (..., M, width) -> (..., T)."""
        if are_equal(list(self.lengths.values())):
            return rows.flatten(-2)
        parts = zip(rows.unbind(dim=-2), self.lengths.values(), strict=True)
        return torch.cat([row[..., :length] for row, length in parts], dim=-1)

    def of_rows(self, per_row: Tensor) -> Tensor:
        """Repeats what belongs to a modality for each of its tokens: (..., M, d) -> (..., T, d)."""
        parts = zip(per_row.split(1, dim=-2), self.lengths.values(), strict=True)
        return torch.cat([row.expand(*row.shape[:-2], length, -1) for row, length in parts], dim=-2)


def are_equal(lengths: Sequence[int]) -> bool:
    """Tells whether all modalities have equally many tokens, at least one; not asked of lengths that are symbols.

    A compiler would have another graph where they happen to be equal.
    """
    return not torch.compiler.is_compiling() and lengths[0] > 0 and all(length == lengths[0] for length in lengths)
