"""The masks of a model's inputs, by modality."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from multifuse._internal import checks


def token_masks(
    inputs: Mapping[str, Any], mask: Mapping[str, Tensor | None] | None, modalities: tuple[str, ...]
) -> dict[str, Tensor | None]:
    """Returns the masks by modality as bool: the given one, the ``attention_mask`` of an input mapping, or ``None``.

    Raises:
        ValueError: inputs or masks that are no mapping by modality, or name an unknown one.
    """
    checks.by_modality("inputs", inputs, modalities)
    masks: dict[str, Tensor | None] = dict.fromkeys(inputs)
    for name, tokens in inputs.items():
        if isinstance(tokens, Mapping) and tokens.get("attention_mask") is not None:
            masks[name] = checks.bool_mask(f"inputs[{name!r}]['attention_mask']", tokens["attention_mask"])
    for name, real in checks.modality_masks(mask, modalities).items():
        if real is not None:
            masks[name] = real
        else:
            masks.setdefault(name, None)
    return masks
