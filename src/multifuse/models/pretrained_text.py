"""Text encoders of transformers as parts of a model: built from a config, loaded from a checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from multifuse.layers.text_levels import TextLevels


def text_encoder(config: Mapping[str, Any]) -> nn.Module:
    """Builds a text encoder, with fresh weights, from a transformers config's dict."""
    fields = {key: value for key, value in config.items() if key not in ("architectures", "transformers_version")}
    return _without_pooler(AutoModel.from_config(AutoConfig.for_model(**fields)))


def load_pretrained(levels: TextLevels, name_or_folder: str) -> None:
    """Copies a pretrained encoder's weights into one of the same architecture."""
    pretrained = _without_pooler(AutoModel.from_pretrained(name_or_folder, dtype=torch.float32))
    levels.model.load_state_dict(pretrained.state_dict())


def _without_pooler(model: Any) -> nn.Module:
    """Drops the pooler, whose weights no level reads, so that no parameter goes without a gradient."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    encoder: nn.Module = model
    return encoder
