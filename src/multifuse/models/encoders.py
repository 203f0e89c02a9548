"""The encoders of a model: built from its config, loaded from a checkpoint of transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from multifuse._internal import checks
from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.hierarchy import SemanticHierarchyEncoder
from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.layers.temporal_conv import TemporalConvLevels
from multifuse.layers.text_levels import TextLevels
from multifuse.models.configuration_clcr import CLCRConfig, EncoderAttention
from multifuse.models.token_masks import token_masks


def hierarchy(config: CLCRConfig) -> SemanticHierarchyEncoder:
    """Builds the encoders that a config describes, with fresh weights.

    Raises:
        ValueError: a config without modalities.
    """
    if not config.modalities:
        raise ValueError("config.modalities must name at least one modality, got none")
    return SemanticHierarchyEncoder(
        config.hidden_size,
        {name: _encoder(config, name, spec) for name, spec in config.modalities.items()},
        config.num_levels,
        positions=config.positions,  # type: ignore[arg-type]
        max_positions=config.max_positions,
    )


def encoded(
    encoders: SemanticHierarchyEncoder,
    dropout: ModalityDropout,
    inputs: Mapping[str, Any],
    mask: Mapping[str, Tensor | None] | None,
    debug: bool,
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor | None]]:
    """Returns the tokens of every level by modality, and the masks of those that are left in training.

    Raises:
        ValueError: inputs or masks that do not fit, by modality; with ``debug`` also features that are not finite.
    """
    masks = token_masks(inputs, mask, encoders.modalities)
    if debug:
        checks.finite_tokens("inputs", inputs, masks)
    levels = encoders(inputs, masks)
    masks = encoders.token_masks(levels, masks)
    checks.token_shapes("tokens", levels[0], masks, encoders.modalities, encoders.dim)
    return levels, dropout(levels[0], masks)


def _encoder(config: CLCRConfig, name: str, spec: Mapping[str, Any]) -> nn.Module:
    dropout = spec.get("dropout", config.dropout)
    if spec["encoder"] == "temporal_conv":
        return TemporalConvLevels(spec["input_size"], config.hidden_size, config.num_levels, dropout=dropout)
    model = backbone(spec["config"], config.encoder_attention.get(name))
    if spec["encoder"] == "text":
        return TextLevels(model, config.num_levels)
    options = {name: spec[name] for name in ("grid", "mean", "std") if name in spec}
    return BackboneLevels(
        model, config.hidden_size, kind=spec["encoder"], num_levels=config.num_levels, dropout=dropout, **options
    )


def backbone(config: Mapping[str, Any], attention: EncoderAttention | None = None) -> nn.Module:
    """Builds a text, vision or audio model, with fresh weights, from a transformers config's dict.

    ``attention`` is the implementation that was asked for, if any was.

    Raises:
        ValueError: an implementation that the model does not support, and that was asked for by its modality's name.
    """
    fields = {key: value for key, value in config.items() if key not in ("architectures", "transformers_version")}

    def built(**options: Any) -> nn.Module:
        return _without_pooler(
            AutoModel.from_config(AutoConfig.for_model(**fields), trust_remote_code=False, **options)
        )

    if attention is None:
        return built()
    try:
        return built(attn_implementation=attention.implementation)
    except ValueError:
        if attention.must_fit:
            raise
        return built()


def load_pretrained(levels: TextLevels | BackboneLevels, name_or_folder: str) -> None:
    """Copies the weights of a pretrained model into an encoder of the same architecture.

    The first convolution may have another number of input channels than the checkpoint's (one for a spectrogram, two
    for flow): each channel then gets the mean over the checkpoint's channels, scaled so that equal channels give the
    same sum (ours). Weights are read from safetensors only, and no code of a checkpoint is run.
    """
    pretrained = _without_pooler(
        AutoModel.from_pretrained(name_or_folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    )
    weights = levels.model.state_dict()
    loaded = pretrained.state_dict()
    levels.model.load_state_dict(
        {name: _channels(weight, weights.get(name, weight)) for name, weight in loaded.items()}
    )
    if isinstance(levels, BackboneLevels):
        levels.pretrained = True


def encoder_of_kind(encoders: SemanticHierarchyEncoder, modality: str, kind: Any, called: str) -> Any:
    """Returns the encoder of a modality, which must be of a kind, or of one of several joined by ``|``.

    Raises:
        ValueError: an unknown modality, or an encoder of another kind, which is ``called`` what it is not.
    """
    encoder = encoders.encoder(modality)
    if not isinstance(encoder, kind):
        raise ValueError(f"modality {modality!r} has a {type(encoder).__name__}, not {called}")
    return encoder


def modules_outside(model: nn.Module, excluded: Sequence[nn.Module]) -> list[str]:
    """Returns the names of the largest modules that together hold every weight outside the excluded ones.

    A ``ModuleList`` or ``ModuleDict``, which cannot be called, is named by its parts, and so is what holds an excluded
    module.
    """

    def outside(name: str, module: nn.Module) -> list[str]:
        inside = set(module.modules())
        if not any(True for _ in module.parameters()) or module in excluded:
            return []
        if name and not isinstance(module, nn.ModuleList | nn.ModuleDict) and inside.isdisjoint(excluded):
            return [name]
        prefix = name + "." if name else ""
        return [part for child, parts in module.named_children() for part in outside(prefix + child, parts)]

    return outside("", model)


def _channels(loaded: Tensor, weight: Tensor) -> Tensor:
    """Returns the loaded weight (out, in, ...) of a convolution for the number of input channels of ``weight``."""
    if loaded.ndim < 3 or loaded.shape[2:] != weight.shape[2:] or loaded.shape[0] != weight.shape[0]:
        return loaded
    before, after = loaded.shape[1], weight.shape[1]
    return loaded if before == after else loaded.mean(1, keepdim=True).expand_as(weight) * (before / after)


def _without_pooler(model: Any) -> nn.Module:
    """Drops the pooler, whose weights no level reads, so that every parameter receives a gradient."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = _NoPooler()
    encoder: nn.Module = model
    return encoder


class _NoPooler(nn.Module):
    """Takes the place of a pooler: some models call theirs without checking, and go on computing with what it gives."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns what it is given."""
        return hidden
