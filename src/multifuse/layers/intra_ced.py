"""IntraCED: the exchange within one level. Only the shared subspace crosses modalities, under a token budget."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from multifuse._internal import checks
from multifuse._internal.checks import Tokens
from multifuse._internal.initialisation import DrawsOwnParameters, XavierLinear
from multifuse._internal.masks import has_tokens, joined_mask
from multifuse._internal.precision import at_least_float32
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.layers.stiefel import Bases, StiefelProjector
from multifuse.layers.token_budget import TokenBudget
from multifuse.ops.attention import attend_others


class IntraCEDOutput(NamedTuple):
    """One level after its exchange, by modality. All but ``tokens`` are 0 at padding, where ``tokens`` is the input.

    ``tokens``, ``shared`` and ``private`` are empty where `IntraCED` was asked for codes only.
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


class IntraCED(DrawsOwnParameters):
    r"""Exchanges the shared codes of one level between modalities.

    .. math:: \tilde h_{sh}^{m,t} = \alpha_t^m \, \mathrm{Attn}(Q_t^m, K^{-m}, V^{-m})

    Multi-head attention in the shared codes: queries of modality m, keys and values of all the other modalities. One
    set of query, key, value and output projections, with bias, r_s wide, is used for all modalities (ours). To use it
    as a drop-in layer, read ``output.tokens``: the shape of the input, plus what was exchanged.

    Args:
        dim: d, the width of the tokens.
        modalities: names, any Python identifiers, one or more, in a fixed order (a set is refused).
        shared_rank, private_rank: r_s and r_p, ``r_s + r_p <= d``.
        num_heads: divides ``shared_rank``.
        gamma: scale of the token budget; 0 gives the identity, ``tokens == h``.
        dropout: the rate at which whole channels of what a sample receives are dropped in training (ours: dropout of
            the attention weights would keep a T x T tensor).
        init_participation: the participation of the budget before training.
        parametrization: of the bases, see `StiefelProjector`.

    Shape:
        ``forward(tokens, mask=None, bases=None, codes_only=False)``: tokens by modality (B, T_m, d); mask by modality
        (B, T_m), True or 1 = real token -> `IntraCEDOutput`. A modality may be left out, ``None``, or fully masked for
        some samples: the others then see what they would see without it. ``bases`` passes in the bases of this level,
        where a model computes those of all levels at once; ``codes_only`` leaves out the streams of width d.

    Raises:
        ValueError: an unknown modality, a wrong shape or dtype, ``num_heads`` that does not divide ``shared_rank``.

    Source: CLCR (arXiv 2602.19605), section IntraCED.

    Example:
        >>> exchange = IntraCED(64, ("text", "audio"), shared_rank=24, private_rank=16)
        >>> output = exchange({"text": torch.randn(8, 12, 64), "audio": torch.randn(8, 30, 64)})
        >>> output.tokens["text"].shape, output.activation["audio"].shape
        (torch.Size([8, 12, 64]), torch.Size([8, 30]))
    """

    def __init__(
        self,
        dim: int,
        modalities: Iterable[str],
        *,
        shared_rank: int,
        private_rank: int,
        num_heads: int = 4,
        gamma: float = 1.0,
        dropout: float = 0.0,
        init_participation: float = 0.68,
        parametrization: Literal["cholesky", "geotorch"] = "cholesky",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.positive_integer("num_heads", num_heads)
        self.projector = StiefelProjector(
            dim,
            modalities,
            shared_rank=shared_rank,
            private_rank=private_rank,
            parametrization=parametrization,
            device=device,
            dtype=dtype,
        )
        if shared_rank % num_heads:
            raise ValueError(f"num_heads must divide shared_rank, got num_heads={num_heads}, shared_rank={shared_rank}")
        self.num_heads, self.dropout = num_heads, ChannelDropout(checks.in_range("dropout", dropout, 0.0, 1.0))
        self.dim, self.modalities = dim, self.projector.modalities
        self.shared_rank, self.private_rank = shared_rank, private_rank
        self.budget = TokenBudget(gamma, init_participation, device=device, dtype=dtype)
        self.query_key_value = XavierLinear(shared_rank, 3 * shared_rank, device=device, dtype=dtype)
        self.output = XavierLinear(shared_rank, shared_rank, device=device, dtype=dtype)

    def forward(
        self,
        tokens: Mapping[str, Tensor | None],
        mask: Mapping[str, Tensor | None] | None = None,
        bases: Bases | None = None,
        codes_only: bool = False,
    ) -> IntraCEDOutput:
        present = checks.token_mapping(tokens, mask, self.modalities, self.projector.dim)
        for name, checked in present.items():
            checks.same_dtype(f"tokens[{name!r}]", checked.values, self.query_key_value.weight)
        bases = self.projector.bases() if bases is None else bases
        codes = self.projector.codes({name: checked.values for name, checked in present.items()}, bases)
        activation = {name: self._activation(code, present[name].mask) for name, code in codes.shared.items()}
        received = self._exchange(codes.shared, present, activation)
        shared = {name: code + received[name] if name in received else code for name, code in codes.shared.items()}
        output = IntraCEDOutput({}, {}, {}, shared, codes.private, activation)
        for name in () if codes_only else present:
            original = tokens[name]
            assert original is not None
            to_ambient = bases.shared.mT.to(shared[name].dtype)
            private_to_ambient = bases.private[self.modalities.index(name)].mT.to(shared[name].dtype)
            output.tokens[name] = original + received[name] @ to_ambient if name in received else original
            output.shared[name] = shared[name] @ to_ambient
            output.private[name] = codes.private[name] @ private_to_ambient
        return output

    def _activation(self, shared_code: Tensor, mask: Tensor | None) -> Tensor:
        """Returns alpha (B, T) from the evidence ``e_t = ||h_t U_sh||_2``, in float32 or better."""
        return self.budget.activation(torch.linalg.vector_norm(at_least_float32(shared_code), dim=-1), mask)

    def _exchange(
        self, shared: Mapping[str, Tensor], present: Mapping[str, Tokens], activation: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Returns what every modality receives, (B, T, r_s): 0 at padding and where a sample has no other modality."""
        if self.budget.gamma == 0 or len(present) == 1:
            return {}
        weights = self._weights(shared, present, activation)
        lengths = [code.shape[1] for code in shared.values()]
        attended = attend_others(
            self.query_key_value(torch.cat(list(shared.values()), dim=1)),
            lengths,
            self.num_heads,
            joined_mask([(checked.values, checked.mask) for checked in present.values()]),
            torch.cat(list(weights.values()), dim=1) > 0,
        )
        parts = self.output(attended).split(lengths, dim=1)
        return {
            name: weight.unsqueeze(-1).to(part.dtype) * self.dropout(part)
            for (name, weight), part in zip(weights.items(), parts, strict=True)
        }

    def _weights(
        self, shared: Mapping[str, Tensor], present: Mapping[str, Tokens], activation: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Returns alpha by modality, 0 where the sample has no other modality."""
        if all(checked.mask is None for checked in present.values()) and all(code.shape[1] for code in shared.values()):
            return dict(activation)
        has = {name: has_tokens(checked.values, checked.mask) for name, checked in present.items()}
        weights = {}
        for name, alpha in activation.items():
            reachable = torch.stack([has[other] for other in has if other != name]).any(dim=0)
            weights[name] = alpha.masked_fill(~reachable.unsqueeze(-1), 0.0)
        return weights

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, {self.modalities}, shared_rank={self.shared_rank}, private_rank={self.private_rank}, "
            f"num_heads={self.num_heads}, gamma={self.budget.gamma}, dropout={self.dropout.p}, "
            f"init_participation={self.budget.init_participation}, parametrization={self.projector.parametrization!r}"
        )
