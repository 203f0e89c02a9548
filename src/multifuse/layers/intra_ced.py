"""IntraCED: the exchange within one level. Only the shared subspace crosses modalities, under a token budget."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from multifuse._internal import checks
from multifuse._internal.checks import Tokens
from multifuse._internal.initialisation import DrawsOwnParameters, XavierLinear
from multifuse._internal.masks import as_sequences, without_padding
from multifuse.layers.adapters import WidthAdapters
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.layers.exchange import IntraCEDOutput, exchanged
from multifuse.layers.stiefel import Bases, StiefelProjector
from multifuse.layers.token_budget import TokenBudget


class IntraCED(DrawsOwnParameters):
    r"""Exchanges the shared codes of one level between modalities.

    .. math:: \tilde h_{sh}^{m,t} = \alpha_t^m \, \mathrm{Attn}(Q_t^m, K^{-m}, V^{-m})

    Multi-head attention in the shared codes: queries of modality m, keys and values of all the other modalities. One
    set of query, key, value and output projections, with bias, r_s wide, is used for all modalities (ours). To use it
    as a drop-in layer, read ``output.tokens``: the shape of the input, plus what was exchanged.

    Args:
        dim: d, the width of the tokens; or widths by modality (ours). Tokens are then mapped to a common width d, and
            what is exchanged back to their own (`WidthAdapters`).
        modalities: names, any Python identifiers, one or more, in a fixed order (a set is refused); by default those
            of the widths.
        common_dim: d, where ``dim`` has widths by modality; by default the smallest of them.
        shared_rank, private_rank: r_s and r_p, ``r_s + r_p <= d``; by default 3/8 of d, rounded down to a multiple of
            ``num_heads``, and 1/4 of d, the shares of the reference configuration.
        num_heads: divides ``shared_rank``.
        init: ``"xavier"``, or ``"identity"`` for an output projection of zeros, so that tokens leave as they came
            before training: for layers put into a model that has been trained, and in `CLCRModel`.
        gamma: scale of the token budget; 0 gives the identity, ``tokens == h``.
        dropout: the rate at which whole channels of what a sample receives are dropped in training (ours: dropout of
            the attention weights would keep a T x T tensor).
        init_participation: the participation of the budget before training.
        parametrization: of the bases, see `StiefelProjector`.

    Shape:
        ``forward(tokens, mask=None)``: tokens by modality (B, T_m, d), or of its own width; a vector (B, d) is one
        token, whose alpha is 1 unless ``gamma`` is 0 (ours: there is none to select it among). Mask by modality
        (B, T_m), of a vector (B,), True or 1 = real token -> `IntraCEDOutput`: ``tokens`` have the shapes of the
        input, the streams have the width d. A modality may be left out, ``None``, or fully masked for some samples:
        the others then see what they would see without it.

    Raises:
        ValueError: an unknown modality, a wrong shape or dtype, ``num_heads`` that does not divide ``shared_rank``.

    Source: CLCR (arXiv 2602.19605), section IntraCED.

    Example:
        >>> exchange = IntraCED(64, ("text", "audio"), shared_rank=24, private_rank=16)
        >>> output = exchange({"text": torch.randn(8, 12, 64), "audio": torch.randn(8, 30, 64)})
        >>> output.tokens["text"].shape, output.activation["audio"].shape
        (torch.Size([8, 12, 64]), torch.Size([8, 30]))
        >>> between = IntraCED({"text": 96, "image": 128}, init="identity")
        >>> between({"text": torch.randn(8, 12, 96), "image": torch.randn(8, 128)}).tokens["image"].shape
        torch.Size([8, 128])
    """

    def __init__(
        self,
        dim: int | Mapping[str, int],
        modalities: Iterable[str] | None = None,
        *,
        common_dim: int | None = None,
        shared_rank: int | None = None,
        private_rank: int | None = None,
        num_heads: int = 4,
        gamma: float = 1.0,
        dropout: float = 0.0,
        init: Literal["xavier", "identity"] = "xavier",
        init_participation: float = 0.68,
        parametrization: Literal["cholesky", "geotorch"] = "cholesky",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.positive_integer("num_heads", num_heads)
        checks.choice("init", init, ("xavier", "identity"))
        dim, widths, names = _widths(dim, modalities, common_dim)
        shared_rank, private_rank = _ranks(dim, num_heads, shared_rank, private_rank)
        self.projector = StiefelProjector(
            dim,
            names,
            shared_rank=shared_rank,
            private_rank=private_rank,
            parametrization=parametrization,
            device=device,
            dtype=dtype,
        )
        if shared_rank % num_heads:
            raise ValueError(f"num_heads must divide shared_rank, got num_heads={num_heads}, shared_rank={shared_rank}")
        self.num_heads, self.init = num_heads, init
        self.dropout = ChannelDropout(checks.in_range("dropout", dropout, 0.0, 1.0))
        self.dim, self.modalities = dim, self.projector.modalities
        self.widths = widths or dict.fromkeys(self.modalities, dim)
        self.adapters = None if widths is None else WidthAdapters(widths, dim, device=device, dtype=dtype)
        self.shared_rank, self.private_rank = shared_rank, private_rank
        self.budget = TokenBudget(gamma, init_participation, device=device, dtype=dtype)
        self.query_key_value = XavierLinear(shared_rank, 3 * shared_rank, device=device, dtype=dtype)
        gain = 0.0 if init == "identity" else 1.0
        self.output = XavierLinear(shared_rank, shared_rank, gain=gain, device=device, dtype=dtype)

    @property
    def gamma(self) -> float:
        """The scale of the token budget; 1 for a module that replaces it and has none."""
        return float(getattr(self.budget, "gamma", 1.0))

    def forward(
        self, tokens: Mapping[str, Tensor | None], mask: Mapping[str, Tensor | None] | None = None
    ) -> IntraCEDOutput:
        vectors = _vectors(tokens)
        masks = None if mask is None else as_sequences(mask, vectors, 1)
        present = checks.token_mapping(as_sequences(tokens, vectors, 2), masks, self.modalities, self.widths)
        threshold: Tensor | None = getattr(self.budget, "threshold", None)  # maps and budget may have been replaced
        for name, checked in present.items():
            if threshold is not None:
                checks.same_dtype(f"tokens[{name!r}]", checked.values, threshold)
        return self.with_bases(tokens, present, self.projector.bases())

    def with_bases(
        self, tokens: Mapping[str, Tensor | None], present: Mapping[str, Tokens], bases: Bases
    ) -> IntraCEDOutput:
        """Computes `forward`, given the tokens that have been checked and the bases of this level."""
        level = Bases(*(basis.unsqueeze(0) for basis in bases))
        values = {name: self._in_common_width(name, checked) for name, checked in present.items()}
        masks = {name: checked.mask for name, checked in present.items()}
        codes = exchanged([self], [values], masks, level, vectors=_vectors(tokens))
        (output,) = codes.outputs()
        output.shared.update(codes.packing.parts(codes.shared[0] @ bases.shared.mT.to(codes.shared.dtype), 1))
        for name, update in codes.updates().items():
            original = tokens[name]
            assert original is not None
            private_to_ambient = bases.private[self.modalities.index(name)].mT.to(original.dtype)
            output.tokens[name] = original
            if update is not None:
                back = update[0] if self.adapters is None else self.adapters.back(name, update[0])
                output.tokens[name] = original + back.view(original.shape)
            output.private[name] = output.private_code[name] @ private_to_ambient
        return output

    def _in_common_width(self, name: str, tokens: Tokens) -> Tensor:
        if self.adapters is None:
            return tokens.values
        return without_padding(self.adapters.into(name, tokens.values), tokens.mask)

    def extra_repr(self) -> str:
        width = self.dim if self.adapters is None else f"{self.widths}, common_dim={self.dim}"
        return (
            f"{width}, {self.modalities}, shared_rank={self.shared_rank}, private_rank={self.private_rank}, "
            f"num_heads={self.num_heads}, gamma={self.gamma}, dropout={self.dropout.p}, "
            f"init={self.init!r}, init_participation={getattr(self.budget, 'init_participation', None)}, "
            f"parametrization={self.projector.parametrization!r}"
        )


def _widths(
    dim: int | Mapping[str, int], modalities: Iterable[str] | None, common_dim: int | None
) -> tuple[int, dict[str, int] | None, Iterable[str]]:
    """Returns the common width, the widths by modality if they were given, and the names of the modalities."""
    if not isinstance(dim, Mapping):
        if modalities is None:
            raise ValueError(f"modalities must be given, unless dim has widths by modality, got dim={dim}")
        if common_dim is not None:
            raise ValueError(f"common_dim is only for widths by modality, got common_dim={common_dim} and dim={dim}")
        return checks.positive_integer("dim", dim), None, modalities
    names = checks.modality_names(dim if modalities is None else modalities)
    if set(names) != set(dim):
        raise ValueError(f"modalities must be those of dim, {list(dim)}, got {list(names)}")
    widths = {name: checks.positive_integer(f"dim[{name!r}]", dim[name]) for name in names}
    common = min(widths.values()) if common_dim is None else checks.positive_integer("common_dim", common_dim)
    return common, widths, names


def _ranks(dim: int, num_heads: int, shared_rank: int | None, private_rank: int | None) -> tuple[int, int]:
    """Returns the ranks, by default 3/8 of the width in whole heads, and 1/4 of it."""
    shared = max(3 * dim // (8 * num_heads), 1) * num_heads if shared_rank is None else shared_rank
    private = max(dim // 4, 1) if private_rank is None else private_rank
    if shared_rank is None and private_rank is None and shared + private > dim:
        raise ValueError(f"num_heads={num_heads} needs a width of {shared + private} for the default ranks, got {dim}")
    return shared, private


def _vectors(tokens: Mapping[str, Tensor | None]) -> frozenset[str]:
    """Returns the modalities that are a vector (B, d) instead of a sequence."""
    if not isinstance(tokens, Mapping):
        return frozenset()
    return frozenset(name for name, values in tokens.items() if isinstance(values, Tensor) and values.ndim == 2)
