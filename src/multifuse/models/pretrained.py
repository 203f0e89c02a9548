"""Models of transformers as parts of ours: built from a config, loaded from a checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.text_levels import TextLevels


def backbone(config: Mapping[str, Any]) -> nn.Module:
    """Builds a text, vision or audio model, with fresh weights, from a transformers config's dict."""
    fields = {key: value for key, value in config.items() if key not in ("architectures", "transformers_version")}
    return _without_pooler(AutoModel.from_config(AutoConfig.for_model(**fields), trust_remote_code=False))


def load_pretrained(levels: TextLevels | BackboneLevels, name_or_folder: str) -> None:
    """Copies a pretrained model's weights into one of the same architecture.

    A first convolution may read another number of channels than the checkpoint's (one of a spectrogram, two of flow):
    each channel gets the mean over the checkpoint's, scaled so that equal channels give the same sum (ours). Weights
    are read from safetensors alone, and no code that a checkpoint brings is run.
    """
    pretrained = _without_pooler(
        AutoModel.from_pretrained(name_or_folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    )
    own = levels.model.state_dict()
    given = pretrained.state_dict()
    levels.model.load_state_dict({name: _channels(weight, own.get(name, weight)) for name, weight in given.items()})
    if isinstance(levels, BackboneLevels):
        levels.pretrained = True


def _channels(weight: Tensor, own: Tensor) -> Tensor:
    """A convolution's weight (out, in, ...) for another number of input channels."""
    if weight.ndim < 3 or weight.shape[2:] != own.shape[2:] or weight.shape[0] != own.shape[0]:
        return weight
    given, wanted = weight.shape[1], own.shape[1]
    return weight if given == wanted else weight.mean(1, keepdim=True).expand_as(own) * (given / wanted)


def _without_pooler(model: Any) -> nn.Module:
    """Drops the pooler, whose weights no level reads, so that no parameter goes without a gradient."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = _NoPooler()
    encoder: nn.Module = model
    return encoder


class _NoPooler(nn.Module):
    """Stands where a pooler was: some models call theirs without asking whether there is one."""

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Computes nothing."""
