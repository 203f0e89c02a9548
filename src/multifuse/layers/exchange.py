"""What IntraCED computes, for one level or for those of a model together."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal.exportable import exportable
from multifuse._internal.masks import joined_mask, without_padding
from multifuse._internal.packing import Packing
from multifuse._internal.precision import at_least_float32
from multifuse._internal.untouched import is_untouched
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.layers.stiefel import Bases
from multifuse.layers.token_budget import TokenBudget, activation_of_levels
from multifuse.ops.attention import attend_others

if TYPE_CHECKING:
    from multifuse.layers.intra_ced import IntraCED


@exportable
class IntraCEDOutput(NamedTuple):
    """One level after its exchange, by modality. All but ``tokens`` are 0 at padding, where ``tokens`` is the input.

    ``tokens``, ``shared`` and ``private`` are empty where a model computes the codes alone.
    """

    tokens: dict[str, Tensor]
    """(B, T, d): the input plus what was exchanged, ``h + alpha Attn U_sh^T``."""
    shared: dict[str, Tensor]
    """(B, T, d): the shared stream, ``h U_sh U_sh^T`` plus what was exchanged."""
    private: dict[str, Tensor]
    """(B, T, d): the private stream, ``h U_pr U_pr^T``, which the exchange does not touch."""
    shared_code: dict[str, Tensor]
    """(B, T, r_s): the coordinates of the shared stream in ``U_sh``."""
    private_code: dict[str, Tensor]
    """(B, T, r_p): the coordinates of the private stream in ``U_pr``."""
    activation: dict[str, Tensor]
    """(B, T): alpha, how much a token takes part in the exchange."""


class LevelCodes(NamedTuple):
    """The codes of L levels after their exchanges, T tokens in all: those of the modalities one after the other."""

    shared: Tensor
    """(L, B, T, r_s), 0 at padding."""
    private: Tensor
    """(L, B, T, r_p), 0 at padding."""
    activation: Tensor
    """(L, B, T): alpha."""
    received: Tensor | None
    """(L, B, T, r_s): what the exchange has added to the shared codes; ``None``: nothing."""
    packing: Packing
    bases: Bases
    """Those of all levels."""

    def outputs(self) -> tuple[IntraCEDOutput, ...]:
        """Returns the output of every level, without the streams of width d."""
        levels = zip(self.shared.unbind(), self.private.unbind(), self.activation.unbind(), strict=True)
        return tuple(IntraCEDOutput({}, {}, {}, *(self.packing.parts(field, 1) for field in level)) for level in levels)

    def updates(self) -> Mapping[str, Tensor | None]:
        """Returns what the exchange adds to the tokens of every modality, ``received U_sh^T`` (L, B, T_m, d)."""
        if self.received is None:
            return dict.fromkeys(self.packing.lengths)
        to_ambient = self.bases.shared.mT.unsqueeze(1).to(self.received.dtype)
        return self.packing.parts(self.received @ to_ambient, 2)


def exchanged(
    layers: "Sequence[IntraCED]",
    levels: Sequence[Mapping[str, Tensor]],
    mask: Mapping[str, Tensor | None],
    bases: Bases,
    vectors: frozenset[str] = frozenset(),
) -> LevelCodes:
    """Computes the exchanges of L levels, of equal sizes and settings, together.

    Args:
        layers: the layers of the levels.
        levels: by level and modality, tokens (B, T_m, d), finite at padding too.
        mask: by modality, (B, T_m) bool.
        bases: those of all levels.
        vectors: the modalities whose only token is a vector, and takes part as a whole.
    """
    given = {name: levels[0][name] for name in layers[0].modalities if name in levels[0]}
    packing = Packing({name: values.shape[1] for name, values in given.items()})
    joined = joined_mask([(values, mask.get(name)) for name, values in given.items()])
    shared, private = _codes(levels, bases, layers[0].modalities, joined)
    real = packing.rows_mask(joined, shared.device)  # (B, M, width)
    evidence = torch.linalg.vector_norm(at_least_float32(shared), dim=-1)
    rows = _activation([layer.budget for layer in layers], packing.rows(evidence), real)
    if vectors and layers[0].gamma > 0:
        rows = _whole(rows, [name in vectors for name in packing.lengths], real)
    activation = packing.from_rows(rows)
    if layers[0].gamma == 0 or len(packing.lengths) == 1:
        return LevelCodes(shared, private, activation, None, packing, bases)
    weights = activation if real is None else packing.from_rows(rows.masked_fill(~_reaches(real), 0.0))
    attended = _attended(layers, shared, packing, joined, weights > 0)
    output = _channels_dropped(layers[0].dropout, _mapped([layer.output for layer in layers], attended), packing)
    received = weights.unsqueeze(-1).to(output.dtype) * output
    return LevelCodes(shared + received, private, activation, received, packing, bases)


def _codes(
    levels: Sequence[Mapping[str, Tensor]], bases: Bases, modalities: tuple[str, ...], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns the codes ``h U_sh`` and ``h U_pr^m`` of all tokens, (L, B, T, r_s) and (L, B, T, r_p), 0 at padding."""
    shared = bases.shared.unsqueeze(1).expand(-1, len(modalities), -1, -1)
    columns = torch.cat([shared, bases.private], dim=-1).to(next(iter(levels[0].values())).dtype)
    codes = []
    for name, of_modality in zip(modalities, columns.unbind(1), strict=True):
        if name in levels[0]:
            tokens = torch.stack([level[name] for level in levels])
            codes.append(torch.bmm(tokens.flatten(1, 2), of_modality).unflatten(1, tokens.shape[1:3]))
    packed = without_padding(torch.cat(codes, dim=2), mask)
    parts = packed.split([bases.shared.shape[-1], bases.private.shape[-1]], dim=-1)
    return parts[0], parts[1]


def _activation(budgets: Sequence[TokenBudget], evidence: Tensor, real: Tensor | None) -> Tensor:
    """Returns alpha (L, B, M, width) for the evidence of every modality; a budget that was changed is called."""
    if len(budgets) > 1 or is_untouched(budgets[0], TokenBudget):
        return activation_of_levels(budgets, evidence, real)
    mask = None if real is None else real.expand_as(evidence[0]).flatten(0, 1)
    rows: Tensor = budgets[0](evidence[0].flatten(0, 1), mask)
    return rows.view_as(evidence)


def _whole(rows: Tensor, is_vector: Sequence[bool], real: Tensor | None) -> Tensor:
    """Sets alpha (L, B, M, width) of modalities that are a vector to 1, without a gradient for their budget."""
    real = torch.ones_like(rows[0], dtype=torch.bool) if real is None else real
    of_modalities = zip(rows.unbind(2), real.unbind(-2), is_vector, strict=True)
    return torch.stack([row.masked_fill(of_row, 1.0) if whole else row for row, of_row, whole in of_modalities], dim=2)


def _reaches(real: Tensor) -> Tensor:
    """Returns which modalities of a sample have another one to receive from: (B, M, width) -> (B, M, 1)."""
    has = real.any(dim=-1)
    return (has.sum(dim=-1, keepdim=True) > has).unsqueeze(-1)


def _attended(
    layers: "Sequence[IntraCED]", shared: Tensor, packing: Packing, mask: Tensor | None, asking: Tensor
) -> Tensor:
    """Returns ``Attn(Q^m, K^{-m}, V^{-m})`` of every level, (L, B, T, r_s)."""
    query_key_value = _mapped([layer.query_key_value for layer in layers], shared)
    if mask is not None:
        mask = mask.expand(len(layers), -1, -1).flatten(0, 1)
    lengths = list(packing.lengths.values())
    attended = attend_others(query_key_value.flatten(0, 1), lengths, layers[0].num_heads, mask, asking.flatten(0, 1))
    of_levels: Tensor = attended.unflatten(0, shared.shape[:2])
    return of_levels


def _mapped(maps: Sequence[nn.Linear], values: Tensor) -> Tensor:
    """Applies the linear map of each level to its values (L, B, T, r)."""
    mapped: Tensor
    if len(maps) == 1:  # as a module, which may have been wrapped or replaced
        mapped = maps[0](values)
        return mapped
    weight = torch.stack([layer.weight for layer in maps])
    bias = torch.stack([layer.bias for layer in maps])
    mapped = torch.baddbmm(bias.unsqueeze(1), values.flatten(1, 2), weight.mT).unflatten(1, values.shape[1:3])
    return mapped


def _channels_dropped(dropout: ChannelDropout, values: Tensor, packing: Packing) -> Tensor:
    """Drops whole channels of what a modality of a sample receives: (L, B, T, r)."""
    if not is_untouched(dropout, ChannelDropout):  # of a single level: others are not computed together
        parts = packing.parts(values.squeeze(0), 1).values()
        return torch.cat([dropout(part) for part in parts], dim=1).unsqueeze(0)
    levels, batch, _, rank = values.shape
    scale = dropout.scale(values, levels, batch, len(packing.lengths), rank)
    return values if scale is None else values * packing.of_rows(scale)
