"""InterCAD: aggregates the levels of all modalities into one shared and one private vector per sample."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.exportable import exportable
from multifuse._internal.initialisation import DrawsOwnParameters, XavierLinear, fill
from multifuse._internal.masks import without_padding
from multifuse._internal.pooling import Pooling, pooling_of
from multifuse._internal.precision import at_least_float32
from multifuse.layers.exchange import IntraCEDOutput, LevelCodes


@exportable
class InterCADOutput(NamedTuple):
    """The aggregate of a batch. Columns of M follow the constructor's order, 0 for a modality that the sample lacks.

    With segments, every field has their dimension S after the batch dimension B.
    """

    fused: Tensor
    """(B, 2d): ``shared`` and ``private``, concatenated."""
    shared: Tensor
    """(B, d): z_sh."""
    private: Tensor
    """(B, d): u_pr."""
    level_weights: Tensor
    """(B, L): omega."""
    modality_weights: Tensor
    """(B, M): beta."""
    private_gates: Tensor
    """(B, M): eta."""
    level_descriptors: Tensor
    """(B, L, d): g_l."""


class InterCAD(DrawsOwnParameters):
    r"""Weighs the levels, then the modalities.

    Summaries ``s_l^m, p_l^m`` are masked mean-pools of the shared and private streams, LayerNormed. With the level
    descriptor ``g_l``, the mean over the present modalities of ``s_l^m + p_l^m``:

    .. math::
        \omega = \mathrm{softmax}_l(\mathrm{MLP}(g_l + \mathrm{anchor}_l) / \sqrt{d} + b_l), \quad
        s^m = \sum_l \omega_l s_l^m, \quad p^m = \sum_l \omega_l p_l^m

    Shared path: dot-product attention over the modalities, its query from the mean of the present s^m, its keys and
    values from each s^m, gives z_sh with weights beta. Private path: ``eta_m = sigmoid(w_p^T LN(W_p p^m) / sqrt(d))``
    and ``u_pr = sum_m eta_m p^m``.

    All weights start uniform, and their logits are divided by sqrt(d) more than is usual (ours): under Adam, a sum over
    d features moves by up to d learning rates in a step, and the weights would collapse before the encoders have
    learned anything.

    Args:
        dim: d.
        modalities: names, any Python identifiers, in a fixed order (a set is refused).
        num_levels: L.
        adaptive: False for the ablation without InterCAD: uniform level and modality weights, gates of 1.
        level_temperature, modality_temperature: divide the logits of omega and beta (ours; 1 = off).
        level_floor, modality_floor: the fraction of omega and beta that is uniform, in [0, 1] (ours; 0 = off). The
            floor of beta spreads over the modalities that a sample has.
        init_last_level: the weight of the last level before training, with a temperature of 1 and a floor of 0, held by
            the learned bias ``b_l`` (ours: a pretrained encoder is most useful at its last level); ``None``: the same
            as every other level's.

    Shape:
        ``forward(levels, mask=None, segments=None)``: the `IntraCEDOutput` of every level; one mask (B, T_m) by
        modality for all of them -> `InterCADOutput`. With ``segments``, S, each of S equal parts of a sample's time,
        which ends with its last real token, is aggregated separately (ours). A model may pass in `LevelCodes`: the
        means of the codes are mapped to width d. Features of several depths become levels by an `IntraCED` each, which
        may map other widths to d, with ``gamma=0`` if nothing is to be exchanged.

    Raises:
        ValueError: a wrong number of levels, levels with different modalities or numbers of tokens, a wrong shape or
            mask.

    Source: CLCR (arXiv 2602.19605), section InterCAD; the form of the anchors is ours, the paper leaves it open.

    Example:
        >>> names = ("text", "audio")
        >>> levels = [IntraCED(64, names, shared_rank=24, private_rank=16) for _ in range(3)]
        >>> aggregation = InterCAD(64, names, num_levels=3)
        >>> tokens = {"text": torch.randn(8, 12, 64), "audio": torch.randn(8, 30, 64)}
        >>> output = aggregation([level(tokens) for level in levels])
        >>> output.fused.shape, output.level_weights.shape
        (torch.Size([8, 128]), torch.Size([8, 3]))
    """

    def __init__(
        self,
        dim: int,
        modalities: Iterable[str],
        *,
        num_levels: int,
        adaptive: bool = True,
        level_temperature: float = 1.0,
        level_floor: float = 0.0,
        modality_temperature: float = 1.0,
        modality_floor: float = 0.0,
        init_last_level: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = checks.positive_integer("dim", dim)
        self.modalities = checks.modality_names(modalities)
        self.num_levels = checks.positive_integer("num_levels", num_levels)
        self.adaptive = adaptive
        self.level_temperature = checks.positive_number("level_temperature", level_temperature)
        self.modality_temperature = checks.positive_number("modality_temperature", modality_temperature)
        self.level_floor = checks.in_range("level_floor", level_floor, 0.0, 1.0)
        self.modality_floor = checks.in_range("modality_floor", modality_floor, 0.0, 1.0)
        self.init_last_level = init_last_level
        if init_last_level is not None:
            checks.in_range("init_last_level", init_last_level, 1e-6, 1 - 1e-6)
        self.shared_norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.private_norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.level_bias = nn.Parameter(torch.empty(num_levels, device=device, dtype=dtype))
        self.anchors = nn.Parameter(torch.empty(num_levels, dim, device=device, dtype=dtype))
        self.level_scorer = nn.Sequential(
            XavierLinear(dim, dim, device=device, dtype=dtype),
            nn.GELU(),
            # All weights start uniform: what chance favours would win before it has been weighed.
            XavierLinear(dim, 1, gain=0.0, device=device, dtype=dtype),
        )
        self.query = XavierLinear(dim, dim, gain=0.0, device=device, dtype=dtype)
        self.key = XavierLinear(dim, dim, device=device, dtype=dtype)
        self.value = XavierLinear(dim, dim, device=device, dtype=dtype)
        self.gate_projection = XavierLinear(dim, dim, device=device, dtype=dtype)
        self.gate_norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.gate_score = XavierLinear(dim, 1, bias=False, gain=0.0, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the anchors and the bias of the levels."""
        nn.init.normal_(self.anchors, std=0.02)
        bias = torch.zeros_like(self.level_bias)
        if self.init_last_level is not None and self.num_levels > 1:
            odds = self.init_last_level / (1 - self.init_last_level)
            bias[-1] = math.log(odds * (self.num_levels - 1))
        fill(self.level_bias, bias)

    def forward(
        self,
        levels: Sequence[IntraCEDOutput] | LevelCodes,
        mask: Mapping[str, Tensor | None] | None = None,
        segments: int | None = None,
    ) -> InterCADOutput:
        if segments is not None:
            checks.positive_integer("segments", segments)
        if isinstance(levels, LevelCodes):
            self._check_number(len(levels.shared))
            activation, masks = levels.packing.parts(levels.activation[0], 1), dict(mask or {})
            pooling = pooling_of(activation, masks, self.modalities, segments)
            pooled = _pooled_codes(levels, pooling)
        else:
            masks = self._checked_masks(levels, mask)
            pooling = pooling_of(levels[0].activation, masks, self.modalities, segments)
            pooled = _pooled_streams(levels, masks, self.modalities, pooling)
        output = self._aggregate(*pooled, pooling.present)
        if segments is None:
            return output
        return InterCADOutput(*(field.unflatten(0, (-1, segments)) for field in output))

    def _aggregate(self, shared: Tensor, private: Tensor, present: Tensor) -> InterCADOutput:
        """Aggregates means of the streams (B, L, M, d), given which modalities are present (B, M)."""
        absent = present[:, None, :, None] == 0
        shared = self.shared_norm(shared).masked_fill(absent, 0.0)
        private = self.private_norm(private).masked_fill(absent, 0.0)
        uniform = present / present.sum(dim=-1, keepdim=True).clamp(min=1.0)  # over the present modalities
        descriptors = torch.einsum("bm,blmd->bld", uniform.to(shared.dtype), shared + private)
        level_weights = self._level_weights(descriptors)
        shared = torch.einsum("bl,blmd->bmd", level_weights.to(shared.dtype), shared)
        private = torch.einsum("bl,blmd->bmd", level_weights.to(private.dtype), private)
        modality_weights = self._modality_weights(shared, uniform)
        gates = self._private_gates(private, present)
        z_shared = torch.einsum("bm,bmd->bd", modality_weights.to(shared.dtype), self.value(shared))
        u_private = torch.einsum("bm,bmd->bd", gates.to(private.dtype), private)
        fused = torch.cat([z_shared, u_private], dim=-1)
        return InterCADOutput(fused, z_shared, u_private, level_weights, modality_weights, gates, descriptors)

    def _check_number(self, given: int) -> None:
        if given != self.num_levels:
            raise ValueError(f"levels must hold {self.num_levels} levels, got {given}")

    def _checked_masks(
        self, levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None] | None
    ) -> dict[str, Tensor | None]:
        """Checks the levels, and returns the masks as bool."""
        checks.levels(levels)
        masks = checks.modality_masks(mask, self.modalities)
        self._check_number(len(levels))
        for index, level in enumerate(levels):
            if set(level.shared) != set(level.activation):
                raise ValueError(f"levels[{index}] must hold the streams of width {self.dim}, holds codes only")
            checks.token_shapes("levels", level.shared, masks, self.modalities, self.dim)
            for name, stream in level.shared.items():
                checks.same_dtype(f"levels[{index}].shared[{name!r}]", stream, self.anchors)
                shapes = [tuple(given.shape[:2]) for given in (stream, levels[0].shared[name])]
                if shapes[0] != shapes[1]:
                    raise ValueError(
                        f"levels must have one number of tokens of {name!r}: levels[{index}] has (batch, tokens) "
                        f"{shapes[0]}, levels[0] {shapes[1]}; pool the longer ones before their exchange"
                    )
        return masks

    def _level_weights(self, descriptors: Tensor) -> Tensor:
        if not self.adaptive:
            return torch.full_like(descriptors[..., 0], 1.0 / self.num_levels)
        score = at_least_float32(self.level_scorer(descriptors + self.anchors).squeeze(-1))
        logits = (
            torch.add(self.level_bias.to(score.dtype), score, alpha=1 / math.sqrt(self.dim)) / self.level_temperature
        )
        return _with_floor(logits.softmax(dim=-1), 1.0 / self.num_levels, self.level_floor)

    def _modality_weights(self, shared: Tensor, uniform: Tensor) -> Tensor:
        if not self.adaptive:
            return uniform
        query = self.query(torch.einsum("bm,bmd->bd", uniform.to(shared.dtype), shared))
        logits = at_least_float32(torch.einsum("bd,bmd->bm", query, self.key(shared)))
        logits = logits / (self.dim * self.modality_temperature)
        # A sample without any modality keeps finite logits; the last product gives it weights of 0.
        absent = (uniform == 0) & uniform.any(dim=-1, keepdim=True)
        weights = logits.masked_fill(absent, float("-inf")).softmax(dim=-1)
        return _with_floor(weights, uniform, self.modality_floor) * (uniform > 0)

    def _private_gates(self, private: Tensor, present: Tensor) -> Tensor:
        if not self.adaptive:
            return present
        score = self.gate_score(self.gate_norm(self.gate_projection(private))).squeeze(-1)
        return torch.sigmoid(at_least_float32(score) / math.sqrt(self.dim)) * present

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, {self.modalities}, num_levels={self.num_levels}, adaptive={self.adaptive}, "
            f"level_temperature={self.level_temperature}, level_floor={self.level_floor}, "
            f"modality_temperature={self.modality_temperature}, modality_floor={self.modality_floor}, "
            f"init_last_level={self.init_last_level}"
        )


def _with_floor(weights: Tensor, uniform: Tensor | float, floor: float) -> Tensor:
    """Mixes the fraction ``floor`` of uniform weights in."""
    return weights if floor == 0 else (1 - floor) * weights + floor * uniform


def _pooled_streams(
    levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None], modalities: Sequence[str], pooling: Pooling
) -> tuple[Tensor, Tensor]:
    """Returns the means of the shared and of the private streams of all levels, (B, L, M, d) each."""

    def means(streams: Sequence[Mapping[str, Tensor]]) -> Tensor:
        parts = [without_padding(stream[name], mask.get(name)) for stream in streams for name in names]
        packed = torch.cat(parts, dim=1).unflatten(1, (len(levels), -1)).movedim(1, 0)
        return pooling.means(packed)

    names = [name for name in modalities if name in levels[0].shared]
    return means([level.shared for level in levels]), means([level.private for level in levels])


def _pooled_codes(levels: LevelCodes, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """Returns the same means as `_pooled_streams`: those of the codes, mapped to width d."""
    shared, private = pooling.means(levels.shared), pooling.means(levels.private)
    return (
        torch.einsum("blmr,ldr->blmd", shared, levels.bases.shared.to(shared.dtype)),
        torch.einsum("blmr,lmdr->blmd", private, levels.bases.private.to(private.dtype)),
    )
