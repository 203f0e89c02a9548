"""IntraCED: the intra-level exchange. Only the shared subspace of a level crosses modalities, under a token budget."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.checks import Tokens
from multifuse._internal.masks import has_tokens, joined_mask
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.layers.stiefel import Bases, StiefelProjector
from multifuse.layers.token_budget import TokenBudget
from multifuse.ops.attention import attend_others


class IntraCEDOutput(NamedTuple):
    """One level after its exchange, by modality. All but ``tokens`` are 0 at padding, where ``tokens`` is the input.

    ``tokens``, ``shared`` and ``private`` are empty where `IntraCED` was asked for the codes alone.
    """

    tokens: dict[str, Tensor]
    """(B, T, d): the input plus what the exchange brought, ``h + alpha Attn U_sh^T``."""
    shared: dict[str, Tensor]
    """(B, T, d): the shared stream, ``h U_sh U_sh^T`` plus what the exchange brought."""
    private: dict[str, Tensor]
    """(B, T, d): the private stream, ``h U_pr U_pr^T``, which no exchange touches."""
    shared_code: dict[str, Tensor]
    """(B, T, r_s): the shared stream's coordinates in ``U_sh``."""
    private_code: dict[str, Tensor]
    """(B, T, r_p): the private stream's coordinates in ``U_pr``."""
    activation: dict[str, Tensor]
    """(B, T): alpha, the share with which a token takes part."""


class IntraCED(nn.Module):
    r"""Exchanges the shared codes of one level between modalities.

    .. math:: \tilde h_{sh}^{m,t} = \alpha_t^m \, \mathrm{Attn}(Q_t^m, K^{-m}, V^{-m})

    Multi-head attention in the shared codes: queries of modality m, keys and values of all the other modalities. One
    set of query, key, value and output projections, with bias, r_s wide, serves all modalities (ours). As a drop-in
    layer, use ``output.tokens``: the input's shape, plus what the exchange brought.

    Args:
        dim: d, the width of the tokens.
        modalities: names, any Python identifiers, one or more.
        shared_rank, private_rank: r_s and r_p, ``r_s + r_p <= d``.
        num_heads: divides ``shared_rank``.
        gamma: scale of the token budget; 0 gives the identity, ``tokens == h``.
        dropout: of whole channels of a sample in what it takes from the others, in training (ours: on the attention
            weights it would keep a tensor of T x T numbers).
        init_participation: the budget's participation before training.
        parametrization: of the bases, see `StiefelProjector`.

    ``forward(tokens, mask=None, bases=None, codes_only=False)``: tokens a dict of (B, T_m, d); mask a dict of (B, T_m)
    bool, True = real token. A modality may be left out, ``None``, or fully masked for some samples: the others then see
    what they would see without it. ``bases`` passes in this level's bases when a model computes those of all levels at
    once; ``codes_only`` leaves out the streams of the tokens' width, for a reader of the codes.

    Raises:
        ValueError: an unknown modality, a wrong shape or dtype, ``num_heads`` that does not divide ``shared_rank``.

    Source: CLCR (arXiv 2602.19605), section IntraCED.
    """

    def __init__(
        self,
        dim: int,
        modalities: Iterable[str],
        shared_rank: int,
        private_rank: int,
        num_heads: int = 4,
        gamma: float = 1.0,
        dropout: float = 0.0,
        init_participation: float = 0.68,
        parametrization: Literal["cholesky", "geotorch"] = "cholesky",
    ) -> None:
        super().__init__()
        checks.positive_integer("num_heads", num_heads)
        if shared_rank % num_heads:
            raise ValueError(f"num_heads must divide shared_rank, got num_heads={num_heads}, shared_rank={shared_rank}")
        self.num_heads, self.dropout = num_heads, ChannelDropout(checks.in_range("dropout", dropout, 0.0, 1.0))
        self.projector = StiefelProjector(dim, shared_rank, private_rank, modalities, parametrization)
        self.modalities = self.projector.modalities
        self.budget = TokenBudget(gamma, init_participation)
        self.query_key_value = nn.Linear(shared_rank, 3 * shared_rank)
        self.output = nn.Linear(shared_rank, shared_rank)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.query_key_value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        tokens: Mapping[str, Tensor | None],
        mask: Mapping[str, Tensor | None] | None = None,
        bases: Bases | None = None,
        codes_only: bool = False,
    ) -> IntraCEDOutput:
        present = checks.token_mapping(tokens, mask, self.modalities, self.projector.dim)
        bases = self.projector.bases() if bases is None else bases
        codes = self.projector.codes({name: given.values for name, given in present.items()}, bases)
        activation = self._activation(codes.shared, present)
        brought = self._exchange(codes.shared, present, activation)
        shared = {name: code + brought[name] if name in brought else code for name, code in codes.shared.items()}
        output = IntraCEDOutput({}, {}, {}, shared, codes.private, activation)
        for name in () if codes_only else present:
            original = tokens[name]
            assert original is not None
            to_ambient = bases.shared.mT.to(shared[name].dtype)
            own = bases.private[self.modalities.index(name)].mT.to(shared[name].dtype)
            output.tokens[name] = original + brought[name] @ to_ambient if name in brought else original
            output.shared[name] = shared[name] @ to_ambient
            output.private[name] = codes.private[name] @ own
        return output

    def _activation(self, shared: Mapping[str, Tensor], present: Mapping[str, Tokens]) -> dict[str, Tensor]:
        """alpha by modality, from the evidence ``e_t = ||h_t U_sh||_2``, in float32 or better."""
        return {name: self.budget.of_codes(code, present[name].mask) for name, code in shared.items()}

    def _exchange(
        self, shared: Mapping[str, Tensor], present: Mapping[str, Tokens], activation: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What every modality takes from the others, (B, T, r_s), 0 at padding and where a sample has no other."""
        if self.budget.gamma == 0 or len(present) == 1:
            return {}
        share = self._share(shared, present, activation)
        lengths = [code.shape[1] for code in shared.values()]
        attended = attend_others(
            self.query_key_value(torch.cat(list(shared.values()), dim=1)),
            lengths,
            self.num_heads,
            joined_mask([(given.values, given.mask) for given in present.values()]),
            torch.cat(list(share.values()), dim=1) > 0,
        )
        parts = self.output(attended).split(lengths, dim=1)
        return {
            name: own.unsqueeze(-1).to(part.dtype) * self.dropout(part)
            for (name, own), part in zip(share.items(), parts, strict=True)
        }

    def _share(
        self, shared: Mapping[str, Tensor], present: Mapping[str, Tokens], activation: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """alpha by modality, and 0 where the sample has no other modality."""
        if all(given.mask is None for given in present.values()) and all(code.shape[1] for code in shared.values()):
            return dict(activation)
        has = {name: has_tokens(given.values, given.mask) for name, given in present.items()}
        share = {}
        for name, alpha in activation.items():
            reachable = torch.stack([own for other, own in has.items() if other != name]).any(dim=0)
            share[name] = alpha.masked_fill(~reachable.unsqueeze(-1), 0.0)
        return share
