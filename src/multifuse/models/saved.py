"""What the files of a saved model may hold: weights in safetensors, no code, and no sizes beyond those weights."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from multifuse.models.configuration_clcr import CLCRConfig

_COUNTS_MODULES = re.compile("layer|depth|level|expert|block|stage")
_WIDTHS = re.compile("size|dim|channel|bins|proposals|multiple")
_NOT_COUNTS = {"id2label", "label2id"} | {field.name for field in fields(CLCRConfig) if "float" in str(field.type)}
"""What may be a large integer: names of labels and their numbers, and fields that need not be integers."""
_WHERE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
_SLACK = 1 << 20
_LONGEST_MESSAGE = 400


class SavedModelError(ValueError):
    """A saved model that cannot be loaded; the message is one line that names it and says what is wrong."""


@contextmanager
def loading(name: Any) -> Iterator[None]:
    """Turns any error that a damaged or hostile file causes in transformers into one line that names the model."""
    try:
        yield
    except (OSError, SavedModelError):
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE, placeholder=" ...")
        raise SavedModelError(f"{name} cannot be loaded as a model: {reason}") from error


def check_folder(model: type[PreTrainedModel], folder: Path) -> None:
    """Checks a local folder before memory is allocated for what it declares.

    Raises:
        SavedModelError: no safetensors, or a config that declares many more layers or weights than they hold.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise SavedModelError(
            f"{folder} holds no safetensors file; weights in a pickle are refused, because a pickle can run code"
        )
    tensors = values = 0
    for path in paths:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensors += 1
                values += torch.Size(file.get_slice(name).get_shape()).numel()
    declared = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name, value in _integers("config", declared):
        field = name.rpartition(".")[2]
        if value > max(tensors, 1) and _COUNTS_MODULES.search(field) and not _WIDTHS.search(field):
            raise SavedModelError(f"{folder}: {name} must be at most the {tensors} tensors stored, got {value}")
    with torch.device("meta"):
        built = model(model.config_class.from_pretrained(folder))
    weights = {id(weight): weight.numel() for weight in built.state_dict(keep_vars=True).values()}  # tied ones once
    wanted = sum(weights.values())
    if wanted > 2 * values + _SLACK:
        raise SavedModelError(f"{folder}: config.json declares {wanted} weights, of which {values} are stored")


def stored_config(model: type[PreTrainedModel], name: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of the config that lies beside saved weights, also where a model is given another; or none."""
    where = {key: options[key] for key in _WHERE if options.get(key) is not None}
    try:
        stored = {} if name is None else model.config_class.get_config_dict(name, **where)[0]
    except OSError:  # weights alone, with a config from elsewhere
        return {}
    return dict(stored)


def check_class(model: PreTrainedModel, stored: Mapping[str, Any], loaded: Mapping[str, Iterable[Any]]) -> None:
    """Checks that a model and its file differ only by whole parts, as by a new head, unless they are of one class.

    ``loaded`` is what transformers tells of the loading.

    Raises:
        SavedModelError: the file is that of another model, of which transformers would say so in a log alone.
    """
    has_base = model.base_model is not model
    related = {kind.__name__ for kind in type(model).__mro__} | (
        {type(model.base_model).__name__} if has_base else set()
    )
    saved_as = stored.get("architectures") or []
    if not saved_as or not related.isdisjoint(saved_as):
        return
    prefix = f"{model.base_model_prefix}." if has_base else ""
    mismatched = {name for name, *_ in loaded["mismatched_keys"]}
    lacking = sorted(name for name in mismatched.union(loaded["missing_keys"]) if name.startswith(prefix))
    if lacking:
        raise SavedModelError(
            f"{model.name_or_path} holds no weights {lacking[0]!r} of {type(model).__name__}: it is {saved_as[0]}"
        )
    parts = {name for name, _ in model.named_children()}
    names = sorted(name for name in loaded["unexpected_keys"] if name.startswith(prefix))
    foreign = [name for name in names if name.partition(".")[0] in parts]
    if foreign:
        raise SavedModelError(
            f"{model.name_or_path} holds weights {foreign[0]!r} that {type(model).__name__} lacks: it is {saved_as[0]}"
        )


def check_order(model: PreTrainedModel, stored: Mapping[str, Any]) -> None:
    """Checks that modalities have the places that they had when the weights, which lie by place, were saved.

    Raises:
        SavedModelError: another order.
    """
    before = stored.get("modality_order") or list(stored.get("modalities") or ())
    now = model.config.modality_order or []
    if any(before.index(name) != now.index(name) for name in set(before).intersection(now)):
        raise SavedModelError(
            f"{model.name_or_path} has weights of the modalities in the order {before}, the config has {now}"
        )


def _integers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    """Yields the integers of a config that may be counts, with their paths; a list's have its name."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _NOT_COUNTS:
                yield from _integers(f"{name}.{key}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _integers(name, item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value
