"""What the files of a saved model may hold: weights in safetensors, no code, and no sizes beyond those weights."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

_COUNTS_MODULES = re.compile("layer|depth|level|expert|block|stage")
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
        if _COUNTS_MODULES.search(name.rpartition(".")[2]) and value > max(tensors, 1):
            raise SavedModelError(f"{folder}: {name} must be at most the {tensors} tensors stored, got {value}")
    with torch.device("meta"):
        built = model(model.config_class.from_pretrained(folder))
    weights = {id(weight): weight.numel() for weight in built.state_dict(keep_vars=True).values()}  # tied ones once
    wanted = sum(weights.values())
    if wanted > 2 * values + _SLACK:
        raise SavedModelError(f"{folder}: config.json declares {wanted} weights, of which {values} are stored")


def check_class(model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Checks that weights which were not in a file are those of a new head, unless the file is one of the same class.

    Raises:
        SavedModelError: the file is that of another model, of which transformers would say so in a log alone.
    """
    related = {kind.__name__ for kind in type(model).__mro__} | {"CLCRModel"}
    saved_as = model.config.architectures or []
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    lacking = sorted(name for name in missing if name.startswith(prefix))
    if lacking and saved_as and related.isdisjoint(saved_as):
        raise SavedModelError(
            f"{model.name_or_path} holds no weights {lacking[0]!r} of {type(model).__name__}: it is {saved_as[0]}"
        )


def _integers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    """Yields the integers of a config with their paths; those of a list have the name of the list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _integers(f"{name}.{key}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _integers(name, item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value
