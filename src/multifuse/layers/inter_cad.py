"""InterCAD: aggregates the levels of all modalities into one shared and one private vector a sample."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.masks import has_tokens, masked_mean, segment_means
from multifuse.layers.intra_ced import IntraCEDOutput
from multifuse.layers.stiefel import Bases


class InterCADOutput(NamedTuple):
    """The aggregate. Columns of M follow the constructor's order, 0 for a modality that the sample lacks.

    With segments, every field has their dimension S after the samples' B, and a segment is what is said of a sample.
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


class _Samples(NamedTuple):
    """What counts as a sample: all the real tokens of one, or each of ``segments`` equal parts of its time."""

    mask: Mapping[str, Tensor | None]
    segments: int | None

    def mean(self, name: str, stream: Mapping[str, Tensor]) -> Tensor | None:
        """The means of a modality's tokens, (B, width) or (B S, width); ``None`` where it was left out."""
        if name not in stream:
            return None
        if self.segments is None:
            return masked_mean(stream[name], self.mask.get(name))
        return segment_means(stream[name], self.mask.get(name), self.segments)[0].flatten(0, 1)

    def have_tokens(self, name: str, stream: Mapping[str, Tensor]) -> Tensor | None:
        """Which samples have a token of a modality, (B,) or (B S,) bool."""
        if name not in stream:
            return None
        if self.segments is None:
            return has_tokens(stream[name], self.mask.get(name))
        return segment_means(stream[name].unsqueeze(-1), self.mask.get(name), self.segments)[1].flatten()


class InterCAD(nn.Module):
    r"""Weighs the levels, then the modalities.

    Summaries ``s_l^m, p_l^m`` are masked mean-pools of the shared and private streams, LayerNormed. With the level
    descriptor ``g_l``, the mean over the present modalities of ``s_l^m + p_l^m``:

    .. math::
        \omega = \mathrm{softmax}_l(\mathrm{MLP}(g_l + \mathrm{anchor}_l) + b_l), \quad
        s^m = \sum_l \omega_l s_l^m, \quad p^m = \sum_l \omega_l p_l^m

    Shared path: a query from the mean of the present s^m, keys and values from each, scaled dot-product attention over
    modalities with weights beta gives z_sh. Private path: ``eta_m = sigmoid(w_p^T LN(W_p p^m))`` and
    ``u_pr = sum_m eta_m p^m``.

    Args:
        dim: d.
        modalities: names, any Python identifiers.
        num_levels: L.
        adaptive: False for the ablation without InterCAD: uniform level and modality weights, gates of 1.
        level_temperature, modality_temperature: divide the logits of omega and beta (ours; 1 = off).
        level_floor, modality_floor: a uniform share mixed into omega and beta, in [0, 1] (ours; 0 = off). The floor of
            beta spreads over the modalities that a sample has.
        initial_last_level: the last level's weight before training, held by the learned bias ``b_l``; ``None``: as
            every other's (ours: one level, whichever chance preferred, took all the weight in the first steps).

    ``forward(levels, mask=None, bases=None, segments=None)``: the `IntraCEDOutput` of every level, one mask dict for
    all of them. With the `Bases` of every level the streams are not read: their means are the codes', mapped to the
    tokens' width. With ``segments``, S, each of S equal parts of a sample's time is aggregated by itself (ours).

    Raises:
        ValueError: a wrong number of levels, levels with different modalities, a wrong shape or mask.

    Source: CLCR (arXiv 2602.19605), section InterCAD; the form of the anchors is ours, the paper leaves it open.
    """

    def __init__(
        self,
        dim: int,
        modalities: Iterable[str],
        num_levels: int,
        adaptive: bool = True,
        level_temperature: float = 1.0,
        level_floor: float = 0.0,
        modality_temperature: float = 1.0,
        modality_floor: float = 0.0,
        initial_last_level: float | None = None,
    ) -> None:
        super().__init__()
        self.dim = checks.positive_integer("dim", dim)
        self.num_levels = checks.positive_integer("num_levels", num_levels)
        self.modalities = checks.modality_names(modalities)
        self.adaptive = adaptive
        self.level_temperature = _positive("level_temperature", level_temperature)
        self.modality_temperature = _positive("modality_temperature", modality_temperature)
        self.level_floor = checks.in_range("level_floor", level_floor, 0.0, 1.0)
        self.modality_floor = checks.in_range("modality_floor", modality_floor, 0.0, 1.0)
        self.shared_norm = nn.LayerNorm(dim)
        self.private_norm = nn.LayerNorm(dim)
        self.initial_last_level = initial_last_level
        if initial_last_level is not None:
            checks.in_range("initial_last_level", initial_last_level, 1e-6, 1 - 1e-6)
        self.level_bias = nn.Parameter(torch.empty(num_levels))
        self.anchors = nn.Parameter(torch.empty(num_levels, dim))
        self.level_scorer = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.gate_projection = nn.Linear(dim, dim)
        self.gate_norm = nn.LayerNorm(dim)
        self.gate_score = nn.Linear(dim, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.anchors, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        # The scorer starts at 0: a level that chance prefers would win before it has been weighed.
        nn.init.zeros_(self.level_scorer[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.level_bias)
        if self.initial_last_level is not None and self.num_levels > 1:
            odds = self.initial_last_level / (1 - self.initial_last_level)
            nn.init.constant_(self.level_bias[-1:], math.log(odds * (self.num_levels - 1)))

    def forward(
        self,
        levels: Sequence[IntraCEDOutput],
        mask: Mapping[str, Tensor | None] | None = None,
        bases: Sequence[Bases] | None = None,
        segments: int | None = None,
    ) -> InterCADOutput:
        self._check(levels, mask, bases)
        if segments is None:
            return self._aggregate(levels, _Samples({} if mask is None else mask, None), bases)
        checks.positive_integer("segments", segments)
        output = self._aggregate(levels, _Samples({} if mask is None else mask, segments), bases)
        return InterCADOutput(*(field.unflatten(0, (-1, segments)) for field in output))

    def _aggregate(
        self, levels: Sequence[IntraCEDOutput], samples: _Samples, bases: Sequence[Bases] | None
    ) -> InterCADOutput:
        present = self._present(levels[0], samples)
        if bases is None:
            pooled = (
                self._pooled([level.shared for level in levels], samples),
                self._pooled([level.private for level in levels], samples),
            )
        else:
            pooled = self._pooled_codes(levels, samples, bases)
        shared, private = (
            norm(means).masked_fill(present[:, None, :, None] == 0, 0.0)
            for norm, means in zip((self.shared_norm, self.private_norm), pooled, strict=True)
        )
        share = present / present.sum(dim=-1, keepdim=True).clamp(min=1.0)  # (B, M): the present modalities' mean
        descriptors = torch.einsum("bm,blmd->bld", share.to(shared.dtype), shared + private)
        level_weights = self._level_weights(descriptors)
        shared = torch.einsum("bl,blmd->bmd", level_weights.to(shared.dtype), shared)
        private = torch.einsum("bl,blmd->bmd", level_weights.to(private.dtype), private)
        modality_weights = self._modality_weights(shared, share)
        gates = self._private_gates(private, present)
        z_shared = torch.einsum("bm,bmd->bd", modality_weights.to(shared.dtype), self.value(shared))
        u_private = torch.einsum("bm,bmd->bd", gates.to(private.dtype), private)
        fused = torch.cat([z_shared, u_private], dim=-1)
        return InterCADOutput(fused, z_shared, u_private, level_weights, modality_weights, gates, descriptors)

    def _check(
        self,
        levels: Sequence[IntraCEDOutput],
        mask: Mapping[str, Tensor | None] | None,
        bases: Sequence[Bases] | None,
    ) -> None:
        if len(levels) != self.num_levels:
            raise ValueError(f"levels must hold {self.num_levels} levels, got {len(levels)}")
        if bases is not None and len(bases) != self.num_levels:
            raise ValueError(f"bases must hold those of {self.num_levels} levels, got {len(bases)}")
        for index, level in enumerate(levels):
            names = set(level.activation)
            if names != set(levels[0].activation):
                raise ValueError(
                    f"levels[{index}] has modalities {sorted(names)}, levels[0] {sorted(levels[0].activation)}"
                )
            if bases is not None:
                checks.token_shapes("levels", level.shared_code, mask, self.modalities, bases[index].shared.shape[-1])
            elif set(level.shared) != names:
                raise ValueError(f"levels[{index}] holds codes only, which need bases, got none")
            else:
                checks.token_shapes("levels", level.shared, mask, self.modalities, self.dim)

    def _present(self, level: IntraCEDOutput, samples: _Samples) -> Tensor:
        """(B, M) in float32: 1 where the sample has a real token of the modality."""
        columns = [samples.have_tokens(name, level.activation) for name in self.modalities]
        first = next(column for column in columns if column is not None)
        return torch.stack([torch.zeros_like(first) if own is None else own for own in columns], dim=-1).float()

    def _pooled(self, streams: Sequence[Mapping[str, Tensor]], samples: _Samples) -> Tensor:
        """(B, L, M, width): masked means over the tokens, 0 for an absent modality."""
        means = [samples.mean(name, stream) for stream in streams for name in self.modalities]
        first = next(mean for mean in means if mean is not None)
        present = [torch.zeros_like(first) if mean is None else mean for mean in means]
        pooled: Tensor = torch.stack(present, dim=1).unflatten(1, (len(streams), len(self.modalities)))
        return pooled

    def _pooled_codes(
        self, levels: Sequence[IntraCEDOutput], samples: _Samples, bases: Sequence[Bases]
    ) -> tuple[Tensor, Tensor]:
        """The streams' means, (B, L, M, d) each: those of the codes, in the ambient width."""
        shared = self._pooled([level.shared_code for level in levels], samples)
        private = self._pooled([level.private_code for level in levels], samples)
        return (
            torch.einsum("blmr,ldr->blmd", shared, torch.stack([own.shared for own in bases]).to(shared.dtype)),
            torch.einsum("blmr,lmdr->blmd", private, torch.stack([own.private for own in bases]).to(private.dtype)),
        )

    def _level_weights(self, descriptors: Tensor) -> Tensor:
        if not self.adaptive:
            return torch.full_like(descriptors[..., 0], 1.0 / self.num_levels)
        logits = self.level_scorer(descriptors + self.anchors).squeeze(-1).float()
        logits = (logits + self.level_bias.float()) / self.level_temperature
        weights: Tensor = (1 - self.level_floor) * logits.softmax(dim=-1) + self.level_floor / self.num_levels
        return weights

    def _modality_weights(self, shared: Tensor, share: Tensor) -> Tensor:
        if not self.adaptive:
            return share
        query = self.query(torch.einsum("bm,bmd->bd", share.to(shared.dtype), shared))
        logits = torch.einsum("bd,bmd->bm", query, self.key(shared)).float()
        logits = logits / (math.sqrt(self.dim) * self.modality_temperature)
        # A sample without any modality keeps finite logits, and weights of 0 by the last product.
        weights = logits.masked_fill((share == 0) & share.any(dim=-1, keepdim=True), float("-inf")).softmax(dim=-1)
        return ((1 - self.modality_floor) * weights + self.modality_floor * share) * (share > 0)

    def _private_gates(self, private: Tensor, present: Tensor) -> Tensor:
        if not self.adaptive:
            return present
        score = self.gate_score(self.gate_norm(self.gate_projection(private))).squeeze(-1)
        return torch.sigmoid(score.float()) * present


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return float(value)
