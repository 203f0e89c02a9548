"""The exchanged tokens of all levels and modalities in one sequence, weighted by InterCAD: a memory for any reader."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multifuse._internal.masks import joined_mask, without_padding
from multifuse._internal.packing import Packing
from multifuse.layers.exchange import IntraCEDOutput, LevelCodes
from multifuse.layers.inter_cad import InterCADOutput


class TokenMemory(NamedTuple):
    """T tokens: those of the first level, modality by modality, then those of the next one."""

    tokens: Tensor
    """(B, T, d), 0 at padding."""
    mask: Tensor
    """(B, T) bool, True = real token."""


def token_memory(
    tokens: Sequence[Mapping[str, Tensor]],
    mask: Mapping[str, Tensor | None],
    aggregate: InterCADOutput,
    modalities: Sequence[str],
) -> TokenMemory:
    """Joins the exchanged tokens of all levels, each scaled by the weights of its level and of its modality.

    The scale is ``L omega_l M beta_m`` (ours), M the number of modalities that the sample has: uniform weights leave
    the tokens as they are.

    Args:
        tokens: by level and modality, (B, T_m, d), with the same modalities at every level.
        mask: by modality, (B, T_m).
        aggregate: the weights.
        modalities: the order of the columns of the modality weights, and of the tokens.
    """
    names = [name for name in modalities if name in tokens[0]]
    packing = Packing({name: tokens[0][name].shape[1] for name in names})
    packed = torch.stack([torch.cat([level[name] for name in names], dim=1) for level in tokens], dim=1)
    real = joined_mask([(tokens[0][name], mask.get(name)) for name in names])
    if real is None:
        real = packed.new_ones(len(packed), packing.total, dtype=torch.bool)
    present = torch.stack([part.any(dim=1) for part in packing.parts(real, 1).values()], dim=1)
    of_modality = aggregate.modality_weights[:, [modalities.index(name) for name in names]]
    of_modality = of_modality * present.sum(dim=1, keepdim=True)
    of_level = aggregate.level_weights * len(tokens)
    scale = of_level[:, :, None, None] * of_modality[:, None, :, None]
    weights = packing.of_rows(scale).to(packed.dtype)  # (B, L, T, 1)
    joined = without_padding(weights * packed, real.unsqueeze(1))
    return TokenMemory(joined.flatten(1, 2), real.repeat(1, len(tokens)))


def exchanged_tokens(
    levels: Sequence[Mapping[str, Tensor]], exchanged: LevelCodes | Sequence[IntraCEDOutput]
) -> list[dict[str, Tensor]]:
    """Returns the tokens of every level after its exchange, given those before it (B, T_m, d)."""
    if not isinstance(exchanged, LevelCodes):
        return [level.tokens for level in exchanged]
    updates = exchanged.updates()
    return [
        {name: level[name] if update is None else level[name] + update[index] for name, update in updates.items()}
        for index, level in enumerate(levels)
    ]
