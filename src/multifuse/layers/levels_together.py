"""The levels of several modalities with equally long features, computed side by side: fewer and larger operators."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from multifuse._internal import devices
from multifuse._internal.masks import masks_of_all
from multifuse._internal.untouched import is_untouched, is_whole
from multifuse.layers.channel_dropout import ChannelDropout, Dropout
from multifuse.layers.level import Level, Positions
from multifuse.layers.temporal_conv import Convolution, Masks, Stage, TemporalConvLevels, filtered, residual

_WITH_WEIGHTS = (Convolution, Positions, nn.LayerNorm, nn.Linear)
_PARTS = (TemporalConvLevels, Stage, ChannelDropout, Level, nn.ModuleList, *_WITH_WEIGHTS)


def group_key(encoder: nn.Module, levels: nn.ModuleList, inputs: Any) -> Hashable | None:
    """Returns what two modalities must have in common to be computed together; ``None`` if this one cannot be.

    On a CPU none can, because what is joined no longer fits into the cache, and a step would take longer. On a GPU, one
    cannot whose encoder is of another kind, or computes its stages again in the backward pass, or has a module that was
    compiled, wrapped, patched, replaced, sharded or parametrized, or has a hook. A compiler gets modalities one by one:
    it would need a graph for every set of them that happen to be equally long.
    """
    if torch.compiler.is_compiling() or not isinstance(inputs, Tensor) or inputs.ndim != 3:
        return None
    if not devices.is_gpu(inputs.device):
        return None
    parts = [*encoder.modules(), *levels.modules()]
    if type(encoder) is not TemporalConvLevels or not all(is_untouched(part, *_PARTS) for part in parts):
        return None
    weighted = [part for part in parts if isinstance(part, _WITH_WEIGHTS)]
    weights = [value for part in weighted for value in part._parameters.values()]
    is_whole_model = all(part._parameters for part in weighted) and all(map(is_whole, weights))
    is_checkpointed = encoder.gradient_checkpointing and encoder.training
    if not is_whole_model or is_checkpointed or encoder.num_levels != len(levels):
        return None
    kinds = [(value.dtype, value.device, value.requires_grad) for value in weights if value is not None]
    settings = [part.eps if isinstance(part, nn.LayerNorm) else getattr(part, "dilation", None) for part in weighted]
    rate = encoder.dropout.p if encoder.dropout.training else 0.0
    return inputs.shape[:2], encoder.num_levels, encoder.output_dim, rate, *kinds, *settings


def levels_together(
    encoders: Sequence[TemporalConvLevels],
    levels: Sequence[Sequence[Level]],
    inputs: Sequence[Tensor],
    masks: Sequence[Tensor | None],
) -> list[tuple[Tensor, ...]]:
    """Computes the levels of M modalities that have the same `group_key`.

    A weight that no loss depends on gets a gradient of 0 where another level or modality was used; computed one by one,
    it would have none.

    Args:
        encoders: those of the modalities.
        levels: by modality, the maps of its levels.
        inputs: by modality, features (B, T, width), 0 at padding.
        masks: by modality, (B, T) bool.

    Returns:
        By modality, L tensors (B, T, d), 0 at padding.
    """
    projected = [encoder.projection(encoder.dropout(values)) for encoder, values in zip(encoders, inputs, strict=True)]
    hidden = torch.stack(projected, dim=2)  # (B, T, M, C)
    given = masks_of_all(list(zip(projected, masks, strict=True)))
    real = None if given is None else torch.stack(given, dim=2).unsqueeze(-1)  # (B, T, M, 1)
    first, count = encoders[0], encoders[0].num_levels
    weights = _by_level([encoder.stages[index] for index in range(count) for encoder in encoders], count)
    stages = [partial(_stage, stage, of_level) for stage, of_level in zip(first.stages, weights, strict=True)]  # type: ignore[arg-type]
    sequences = first.levels_of(hidden, real, stages, first.dropout.drawn(hidden, count))
    mapped = _mapped([of_modality[index] for index in range(count) for of_modality in levels], sequences, real)
    return [of_modality.unbind() for of_modality in mapped.unbind(1)]


def _by_level(modules: Sequence[nn.Module], count: int) -> list[dict[str, Tensor]]:
    """Returns the parameters of M modules for each of ``count`` levels, which come first: by name, (M, ...)."""
    stacked = {name: values.unflatten(0, (count, -1)).unbind() for name, values in _stacked(modules).items()}
    return [{name: of_levels[index] for name, of_levels in stacked.items()} for index in range(count)]


def _stacked(modules: Sequence[nn.Module], without: str = "") -> dict[str, Tensor]:
    """Returns the parameters of all modules by name, (N, ...), but those of a part."""
    parameters = [dict(module.named_parameters(remove_duplicate=False)) for module in modules]
    names = [name for name in parameters[0] if not (without and name.startswith(f"{without}."))]
    return {name: torch.stack([of_module[name] for of_module in parameters]) for name in names}


def _stage(
    stage: Stage, weights: Mapping[str, Tensor], hidden: Tensor, padded: int, masks: Masks | None, dropout: Dropout
) -> Tensor:
    """Computes a stage of all modalities, (B, T, M, C): the channels of one are beside those of the next."""
    count = hidden.shape[2]
    dilations: list[Any] = [convolution.dilation[0] for convolution in stage.convolutions]  # type: ignore[index, union-attr]

    def norm(tokens: Tensor) -> Tensor:
        return _normalised(tokens, weights["norm.weight"], weights["norm.bias"], stage.norm.eps)

    def convolution(index: int, tokens: Tensor) -> Tensor:
        weight, bias = (weights[f"convolutions.{index}.{name}"].flatten(0, 1) for name in ("weight", "bias"))
        by_channel: Tensor = filtered(tokens.flatten(2), weight, bias, dilations[index]).unflatten(2, (count, -1))
        return by_channel

    def mixer(tokens: Tensor) -> Tensor:
        rows = tokens.flatten(0, 1).transpose(0, 1)
        mixed = torch.baddbmm(weights["mixer.bias"].unsqueeze(1), rows, weights["mixer.weight"].mT)
        by_modality: Tensor = mixed.transpose(0, 1).unflatten(0, tokens.shape[:2])
        return by_modality

    first, second = (partial(convolution, index) for index in range(2))
    return hidden + dropout(residual(hidden, padded, masks, norm, first, second, mixer))


def _mapped(levels: Sequence[Level], sequences: Sequence[Tensor], real: Tensor | None) -> Tensor:
    """Computes the levels (L, M, B, T, d) from the sequences (B, T, M, C), given all L times M maps."""
    tokens = torch.stack([sequence.movedim(2, 0) for sequence in sequences])
    weights = _stacked(levels, without="position")
    rows = tokens.flatten(2, 3).flatten(0, 1)
    hidden = torch.baddbmm(weights["projection.bias"].unsqueeze(1), rows, weights["projection.weight"].mT)
    hidden = hidden.unflatten(1, tokens.shape[2:4])
    if levels[0].position is None:
        positions = levels[0].positions(tokens.shape[3], hidden)
    else:
        positions = torch.stack([level.positions(tokens.shape[3], hidden) for level in levels]).unsqueeze(1)
    scale, shift = (weights[f"norm.{name}"][:, None, None] for name in ("weight", "bias"))
    mapped: Tensor = _normalised(hidden + positions, scale, shift, levels[0].norm.eps).unflatten(0, tokens.shape[:2])
    return mapped if real is None else mapped.masked_fill(~real.movedim(2, 0), 0.0)


def _normalised(tokens: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Computes a LayerNorm whose scale and shift depend on more than the channel."""
    return torch.addcmul(shift, functional.layer_norm(tokens, tokens.shape[-1:], eps=eps), scale)
