"""IntraCED: the exchange within one level. Only the shared subspace crosses modalities, under a token budget."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.checks import Tokens
from multifuse._internal.exportable import exportable
from multifuse._internal.initialisation import DrawsOwnParameters, XavierLinear
from multifuse._internal.masks import joined_mask, without_padding
from multifuse._internal.packing import Packing
from multifuse._internal.precision import at_least_float32
from multifuse._internal.untouched import is_untouched
from multifuse.layers.adapters import WidthAdapters
from multifuse.layers.channel_dropout import ChannelDropout
from multifuse.layers.stiefel import Bases, StiefelProjector
from multifuse.layers.token_budget import TokenBudget, activation_of_levels
from multifuse.ops.attention import attend_others


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
            before training: for layers put into a model that has been trained.
        gamma: scale of the token budget; 0 gives the identity, ``tokens == h``.
        dropout: the rate at which whole channels of what a sample receives are dropped in training (ours: dropout of
            the attention weights would keep a T x T tensor).
        init_participation: the participation of the budget before training.
        parametrization: of the bases, see `StiefelProjector`.

    Shape:
        ``forward(tokens, mask=None)``: tokens by modality (B, T_m, d), or of its own width; a vector (B, d) is one
        token, whose alpha is 1 unless ``gamma`` is 0 (ours: there is none to select it among). Mask by modality
        (B, T_m), True or 1 = real token -> `IntraCEDOutput`: ``tokens`` have the shapes of the input, the streams have
        the width d. A modality may be left out, ``None``, or fully masked for some
        samples: the others then see what they would see without it.

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
        shared_rank = max(3 * dim // (8 * num_heads), 1) * num_heads if shared_rank is None else shared_rank
        private_rank = max(dim // 4, 1) if private_rank is None else private_rank
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
        self.num_heads, self.dropout = num_heads, ChannelDropout(checks.in_range("dropout", dropout, 0.0, 1.0))
        self.dim, self.modalities = dim, self.projector.modalities
        self.widths = widths or dict.fromkeys(self.modalities, dim)
        self.adapters = None if widths is None else WidthAdapters(widths, dim, device=device, dtype=dtype)
        self.shared_rank, self.private_rank = shared_rank, private_rank
        self.budget = TokenBudget(gamma, init_participation, device=device, dtype=dtype)
        self.query_key_value = XavierLinear(shared_rank, 3 * shared_rank, device=device, dtype=dtype)
        gain = 0.0 if init == "identity" else 1.0
        self.output = XavierLinear(shared_rank, shared_rank, gain=gain, device=device, dtype=dtype)

    def forward(
        self, tokens: Mapping[str, Tensor | None], mask: Mapping[str, Tensor | None] | None = None
    ) -> IntraCEDOutput:
        present = checks.token_mapping(_as_sequences(tokens), mask, self.modalities, self.widths)
        for name, checked in present.items():
            checks.same_dtype(f"tokens[{name!r}]", checked.values, self.budget.threshold)  # maps may have been replaced
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
        for name, update in codes.updates().items():
            original = tokens[name]
            assert original is not None
            to_ambient = bases.shared.mT.to(original.dtype)
            private_to_ambient = bases.private[self.modalities.index(name)].mT.to(original.dtype)
            output.tokens[name] = original
            if update is not None:
                back = update[0] if self.adapters is None else self.adapters.back(name, update[0])
                output.tokens[name] = original + back.view(original.shape)
            output.shared[name] = output.shared_code[name] @ to_ambient
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
            f"num_heads={self.num_heads}, gamma={self.budget.gamma}, dropout={self.dropout.p}, "
            f"init_participation={self.budget.init_participation}, parametrization={self.projector.parametrization!r}"
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
        return dim, None, modalities
    names = checks.modality_names(dim if modalities is None else modalities)
    if set(names) != set(dim):
        raise ValueError(f"modalities must be those of dim, {list(dim)}, got {list(names)}")
    widths = {name: checks.positive_integer(f"dim[{name!r}]", dim[name]) for name in names}
    common = min(widths.values()) if common_dim is None else checks.positive_integer("common_dim", common_dim)
    return common, widths, names


def _as_sequences(tokens: Mapping[str, Tensor | None]) -> Mapping[str, Tensor | None]:
    """Returns vectors (B, d) as one token, (B, 1, d); what is wrong is left to the checks that follow."""
    if not isinstance(tokens, Mapping):
        return tokens
    vectors = _vectors(tokens)
    return {
        name: values.unsqueeze(1) if values is not None and name in vectors else values
        for name, values in tokens.items()
    }


def _vectors(tokens: Mapping[str, Tensor | None]) -> frozenset[str]:
    """Returns the modalities that are a vector (B, d) instead of a sequence."""
    return frozenset(name for name, values in tokens.items() if isinstance(values, Tensor) and values.ndim == 2)


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
    layers: Sequence[IntraCED],
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
    rows = activation_of_levels([layer.budget for layer in layers], packing.rows(evidence), real)
    if vectors and layers[0].budget.gamma > 0:
        rows = _whole(rows, [name in vectors for name in packing.lengths], real)
    activation = packing.from_rows(rows)
    if layers[0].budget.gamma == 0 or len(packing.lengths) == 1:
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
    layers: Sequence[IntraCED], shared: Tensor, packing: Packing, mask: Tensor | None, asking: Tensor
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
