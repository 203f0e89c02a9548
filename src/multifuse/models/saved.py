"""What the files of a saved model may hold: weights in safetensors, no code, and no sizes beyond those weights."""

import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
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
        SavedModelError: no safetensors, a config that declares many more layers or weights than they hold, or a part of
            the model without any of its weights, as when another model was saved.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise SavedModelError(
            f"{folder} holds no safetensors file; weights in a pickle are refused, because a pickle can run code"
        )
    sizes: dict[str, int] = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                sizes[name] = torch.Size(file.get_slice(name).get_shape()).numel()
    tensors, values = len(sizes), sum(sizes.values())
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
    for part in _parts(built.base_model):
        if not any(f".{part}." in f".{name}" for name in sizes):
            saved_as = ", ".join(map(str, declared.get("architectures") or ["no model that is named"]))
            raise SavedModelError(
                f"{folder} holds no weights of {part!r}, a part of {model.__name__}: it is {saved_as}"
            )


def _parts(model: nn.Module) -> Iterator[str]:
    """Yields the names of the modules of a model, and of their own modules, that have weights."""
    for name, module in model.named_children():
        for inner, part in (("", module), *module.named_children()):
            if next(part.parameters(), None) is not None:
                yield f"{name}.{inner}" if inner else name


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
