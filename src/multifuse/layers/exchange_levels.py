"""The exchanges of all levels of a model, computed together where nobody has changed what one of them does."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from torch import Tensor, nn

from multifuse._internal.initialisation import XavierLinear
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.layers.intra_ced import IntraCED, LevelCodes, exchanged
from multifuse.layers.stiefel import StiefelProjector, bases_of_levels
from multifuse.layers.token_budget import TokenBudget

_PARTS = (IntraCED, StiefelProjector, TokenBudget, XavierLinear, ChannelDropout)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def can_exchange_together(exchanges: Sequence[nn.Module]) -> TypeGuard[Sequence[IntraCED]]:
    """Tells whether one computation for all levels does what calling each exchange does.

    It does not where one was compiled, wrapped, replaced, sharded or parametrized, has a hook, or differs from the
    others in its sizes or settings.
    """
    return all(map(_is_plain, exchanges)) and len(set(map(_settings, exchanges))) == 1  # type: ignore[arg-type]


def _is_plain(exchange: nn.Module) -> bool:
    return type(exchange) is IntraCED and all(
        type(part) in _PARTS and not any(getattr(part, hooks) for hooks in _HOOKS) for part in exchange.modules()
    )


def _settings(exchange: IntraCED) -> tuple[object, ...]:
    rate = exchange.dropout.p if exchange.dropout.training else 0.0
    sizes = (exchange.dim, exchange.modalities, exchange.shared_rank, exchange.private_rank, exchange.num_heads)
    return (*sizes, exchange.budget.gamma, rate, exchange.output.weight.dtype, exchange.output.weight.device)


def exchange_levels(
    exchanges: Sequence[IntraCED], levels: Sequence[Mapping[str, Tensor]], mask: Mapping[str, Tensor | None]
) -> LevelCodes:
    """Computes the codes that every exchange gives for the tokens of its level, by modality (B, T_m, d)."""
    bases = bases_of_levels([exchange.projector for exchange in exchanges])
    return exchanged(exchanges, levels, mask, bases)
