"""InterCAD: aggregates the levels of all modalities into one shared and one private vector per sample."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.initialisation import DrawsOwnParameters, XavierLinear, fill
from multifuse._internal.masks import has_tokens, masked_mean, segment_means
from multifuse.layers.intra_ced import IntraCEDOutput
from multifuse.layers.stiefel import Bases


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


class _Pooling(NamedTuple):
    """Means over all real tokens of a sample, or over those in each of ``segments`` equal parts of its time."""

    mask: Mapping[str, Tensor | None]
    segments: int | None

    def mean(self, name: str, stream: Mapping[str, Tensor]) -> Tensor | None:
        """Returns the means of a modality's tokens, (B, width) or (B S, width); ``None`` where it was left out."""
        if name not in stream:
            return None
        if self.segments is None:
            return masked_mean(stream[name], self.mask.get(name))
        return segment_means(stream[name], self.mask.get(name), self.segments)[0].flatten(0, 1)

    def has_tokens(self, name: str, stream: Mapping[str, Tensor]) -> Tensor | None:
        """Returns which samples, or segments, have a token of a modality, (B,) or (B S,) bool."""
        if name not in stream:
            return None
        if self.segments is None:
            return has_tokens(stream[name], self.mask.get(name))
        return segment_means(stream[name].unsqueeze(-1), self.mask.get(name), self.segments)[1].flatten()


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
        init_last_level: the weight of the last level before training, held by the learned bias ``b_l``; ``None``: the
            same as every other level's (ours: the level that chance favoured took all the weight in the first steps).

    Shape:
        ``forward(levels, mask=None, bases=None, segments=None)``: the `IntraCEDOutput` of every level; one mask
        (B, T_m) by modality for all of them -> `InterCADOutput`. With the `Bases` of every level, the means of the
        codes are mapped to width d, and the streams are not read. With ``segments``, S, each of S equal parts of a
        sample's time is aggregated separately (ours).

    Raises:
        ValueError: a wrong number of levels, levels with different modalities, a wrong shape or mask.

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
        levels: Sequence[IntraCEDOutput],
        mask: Mapping[str, Tensor | None] | None = None,
        bases: Sequence[Bases] | None = None,
        segments: int | None = None,
    ) -> InterCADOutput:
        checks.levels(levels)
        masks = checks.modality_masks(mask, self.modalities)
        self._check(levels, masks, bases)
        if segments is None:
            return self._aggregate(levels, _Pooling(masks, None), bases)
        checks.positive_integer("segments", segments)
        output = self._aggregate(levels, _Pooling(masks, segments), bases)
        return InterCADOutput(*(field.unflatten(0, (-1, segments)) for field in output))

    def _aggregate(
        self, levels: Sequence[IntraCEDOutput], pooling: _Pooling, bases: Sequence[Bases] | None
    ) -> InterCADOutput:
        present = self._present(levels[0], pooling)
        if bases is None:
            pooled = (
                self._pooled([level.shared for level in levels], pooling),
                self._pooled([level.private for level in levels], pooling),
            )
        else:
            pooled = self._pooled_codes(levels, pooling, bases)
        shared, private = (
            norm(means).masked_fill(present[:, None, :, None] == 0, 0.0)
            for norm, means in zip((self.shared_norm, self.private_norm), pooled, strict=True)
        )
        uniform = present / present.sum(dim=-1, keepdim=True).clamp(min=1.0)  # (B, M), over the present modalities
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

    def _check(
        self, levels: Sequence[IntraCEDOutput], masks: Mapping[str, Tensor | None], bases: Sequence[Bases] | None
    ) -> None:
        if len(levels) != self.num_levels:
            raise ValueError(f"levels must hold {self.num_levels} levels, got {len(levels)}")
        if bases is not None and len(bases) != self.num_levels:
            raise ValueError(f"bases must hold those of {self.num_levels} levels, got {len(bases)}")
        for index, level in enumerate(levels):
            if bases is not None:
                checks.token_shapes("levels", level.shared_code, masks, self.modalities, bases[index].shared.shape[-1])
            elif set(level.shared) != set(level.activation):
                raise ValueError(f"levels[{index}] holds codes only, which need bases, got none")
            else:
                checks.token_shapes("levels", level.shared, masks, self.modalities, self.dim)

    def _present(self, level: IntraCEDOutput, pooling: _Pooling) -> Tensor:
        """Returns (B, M) in float32: 1 where the sample has a real token of the modality."""
        columns = [pooling.has_tokens(name, level.activation) for name in self.modalities]
        known = next(column for column in columns if column is not None)
        return torch.stack([torch.zeros_like(known) if column is None else column for column in columns], -1).float()

    def _pooled(self, streams: Sequence[Mapping[str, Tensor]], pooling: _Pooling) -> Tensor:
        """Returns (B, L, M, width): masked means over the tokens, 0 for an absent modality."""
        means = [pooling.mean(name, stream) for stream in streams for name in self.modalities]
        known = next(mean for mean in means if mean is not None)
        present = [torch.zeros_like(known) if mean is None else mean for mean in means]
        pooled: Tensor = torch.stack(present, dim=1).unflatten(1, (len(streams), len(self.modalities)))
        return pooled

    def _pooled_codes(
        self, levels: Sequence[IntraCEDOutput], pooling: _Pooling, bases: Sequence[Bases]
    ) -> tuple[Tensor, Tensor]:
        """Returns the means of the streams, (B, L, M, d) each: those of the codes, mapped to width d."""
        shared = self._pooled([level.shared_code for level in levels], pooling)
        private = self._pooled([level.private_code for level in levels], pooling)
        shared_bases = torch.stack([level.shared for level in bases]).to(shared.dtype)
        private_bases = torch.stack([level.private for level in bases]).to(private.dtype)
        return (
            torch.einsum("blmr,ldr->blmd", shared, shared_bases),
            torch.einsum("blmr,lmdr->blmd", private, private_bases),
        )

    def _level_weights(self, descriptors: Tensor) -> Tensor:
        if not self.adaptive:
            return torch.full_like(descriptors[..., 0], 1.0 / self.num_levels)
        score = self.level_scorer(descriptors + self.anchors).squeeze(-1).float() / math.sqrt(self.dim)
        logits = (score + self.level_bias.float()) / self.level_temperature
        weights: Tensor = (1 - self.level_floor) * logits.softmax(dim=-1) + self.level_floor / self.num_levels
        return weights

    def _modality_weights(self, shared: Tensor, uniform: Tensor) -> Tensor:
        if not self.adaptive:
            return uniform
        query = self.query(torch.einsum("bm,bmd->bd", uniform.to(shared.dtype), shared))
        logits = torch.einsum("bd,bmd->bm", query, self.key(shared)).float()
        logits = logits / (self.dim * self.modality_temperature)
        # A sample without any modality keeps finite logits; the last product gives it weights of 0.
        absent = (uniform == 0) & uniform.any(dim=-1, keepdim=True)
        weights = logits.masked_fill(absent, float("-inf")).softmax(dim=-1)
        return ((1 - self.modality_floor) * weights + self.modality_floor * uniform) * (uniform > 0)

    def _private_gates(self, private: Tensor, present: Tensor) -> Tensor:
        if not self.adaptive:
            return present
        score = self.gate_score(self.gate_norm(self.gate_projection(private))).squeeze(-1)
        return torch.sigmoid(score.float() / math.sqrt(self.dim)) * present

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, {self.modalities}, num_levels={self.num_levels}, adaptive={self.adaptive}, "
            f"level_temperature={self.level_temperature}, level_floor={self.level_floor}, "
            f"modality_temperature={self.modality_temperature}, modality_floor={self.modality_floor}, "
            f"init_last_level={self.init_last_level}"
        )
