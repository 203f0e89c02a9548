"""The exchanges of all levels of a model, computed together where nobody has changed what one of them does."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from torch import Tensor, nn

from multifuse._internal.initialisation import XavierLinear
from multifuse._internal.untouched import is_plain
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.layers.exchange import LevelCodes, exchanged
from multifuse.layers.intra_ced import IntraCED
from multifuse.layers.stiefel import StiefelProjector, bases_of_levels
from multifuse.layers.token_budget import TokenBudget

_PARTS = (IntraCED, StiefelProjector, TokenBudget, XavierLinear, ChannelDropout)


def can_exchange_together(exchanges: Sequence[nn.Module]) -> TypeGuard[Sequence[IntraCED]]:
    """Tells whether one computation for all levels does what calling each exchange does.

    It does not where one was compiled, wrapped, patched, replaced, sharded or parametrized, has a hook, or differs from
    the others in its settings or in the types of its parameters.
    """
    return all(map(_is_plain, exchanges)) and len(set(map(_settings, exchanges))) == 1  # type: ignore[arg-type]


def _is_plain(exchange: nn.Module) -> bool:
    return (
        type(exchange) is IntraCED
        and is_plain(exchange, *_PARTS)
        and exchange.query_key_value.bias is not None
        and exchange.output.bias is not None
    )


def _settings(exchange: IntraCED) -> tuple[object, ...]:
    rate = exchange.dropout.p if exchange.dropout.training else 0.0
    weights = tuple((name, value.shape, value.dtype, value.device) for name, value in exchange.named_parameters())
    return exchange.modalities, exchange.num_heads, exchange.gamma, rate, weights


def exchange_levels(
    exchanges: Sequence[IntraCED], levels: Sequence[Mapping[str, Tensor]], mask: Mapping[str, Tensor | None]
) -> LevelCodes:
    """Computes the codes that every exchange gives for the tokens of its level, by modality (B, T_m, d)."""
    bases = bases_of_levels([exchange.projector for exchange in exchanges])
    return exchanged(exchanges, levels, mask, bases)
