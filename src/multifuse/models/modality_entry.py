"""What an entry of ``CLCRConfig.modalities`` may hold: the keys of each encoder, and their values."""

import sys
from difflib import get_close_matches
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from multifuse._internal import checks
from multifuse._internal.plain import plain

_BACKBONE_KEYS = ("encoder", "config", "grid", "mean", "std", "dropout")
_KEYS = {
    "temporal_conv": ("encoder", "input_size", "dropout"),
    "text": ("encoder", "config"),
    "image": _BACKBONE_KEYS,
    "audio": _BACKBONE_KEYS,
}


def plain_entry(entry: Any) -> Any:
    """Returns an entry as JSON can hold it: its transformers config as a dict, its numbers those of Python."""
    is_object = isinstance(entry, dict) and isinstance(entry.get("config"), PreTrainedConfig)
    return plain({**entry, "config": entry["config"].to_dict()} if is_object else entry)


def check_entry(name: str, entry: Any, is_from_file: bool) -> None:
    """Checks the entry of a modality.

    In one that is from a file, as of an earlier version, only a key that is nearly one of ours is refused.

    Raises:
        ValueError: a key that does not exist, or a value that does not fit, by modality and key.
    """
    path = f"modalities[{name!r}]"
    if not isinstance(entry, dict) or entry.get("encoder") not in _KEYS:
        raise ValueError(f"{path} must be a dict whose 'encoder' is one of {tuple(_KEYS)}, got {entry!r}")
    _check_keys(path, entry, is_from_file)
    if entry["encoder"] == "temporal_conv":
        checks.positive_integer(f"{path}['input_size']", entry.get("input_size"))
    elif not isinstance(entry.get("config"), dict) or "model_type" not in entry["config"]:
        raise ValueError(f"{path}['config'] must be a transformers config's dict with 'model_type'")
    if "dropout" in entry:
        checks.in_range(f"{path}['dropout']", entry["dropout"], 0.0, 1.0)
    if "grid" in entry:
        checks.grid(f"{path}['grid']", entry["grid"])
    for key, low in (("mean", -sys.float_info.max), ("std", sys.float_info.min)):
        if key in entry:
            _check_by_channel(f"{path}[{key!r}]", entry[key], low, entry["config"])


def _check_keys(path: str, entry: dict[str, Any], is_from_file: bool) -> None:
    known = _KEYS[entry["encoder"]]
    for key, value in entry.items():
        nearest = get_close_matches(str(key), known, n=1, cutoff=0.8 if is_from_file else 0.6)
        if key not in known and (nearest or not is_from_file):
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"those of {entry['encoder']!r} are {known}"
            raise ValueError(f"{path} has no key {key!r}, got {key}={value!r:.80}; {hint}")


def _check_by_channel(path: str, values: Any, low: float, config: dict[str, Any]) -> None:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{path} must be a list of numbers, one per channel or one for all, got {values!r}")
    for value in values:
        checks.in_range(path, value, low, sys.float_info.max)
    channels = _channels(config)
    if not values or (channels is not None and len(values) not in (1, channels)):
        expected = "1 number" if channels is None else f"1 number or {channels}, one per channel"
        raise ValueError(f"{path} must have {expected}, got {values!r}")


def _channels(config: dict[str, Any]) -> int | None:
    """Returns the input channels of a backbone; ``None`` where its config has no such field."""
    known = config["model_type"] in CONFIG_MAPPING  # which is lazy: its `get` would find nothing
    kind = CONFIG_MAPPING[config["model_type"]] if known else None
    channels = config.get("num_channels", getattr(kind, "num_channels", None))
    return channels if isinstance(channels, int) else None
