"""Flat arguments of models beside nested ones: `audio=` and `audio_mask=` for `inputs["audio"]` and `mask["audio"]`."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial, wraps
from types import MethodType
from typing import Any, NamedTuple

import torch
from transformers.utils.generic import can_return_tuple

from multifuse._internal import checks

TOKENIZED = ("input_ids", "attention_mask", "token_type_ids")
"""What tokenizers compute."""


class Place(NamedTuple):
    """Where a flat argument belongs: an entry of ``inputs`` or of ``mask``, or a part of a text's mapping."""

    modality: str
    part: str = ""
    """``""`` for the input itself, ``"mask"``, or one of `TOKENIZED`."""


def flat_names(modalities: Mapping[str, Mapping[str, Any]], reserved: Iterable[str] = ()) -> dict[str, Place]:
    """Returns the flat arguments of a model with these entries of ``CLCRConfig.modalities``, in order.

    For a modality ``m``, they are ``m`` and ``m_mask``; for a text also ``m_input_ids``, ``m_attention_mask`` and
    ``m_token_type_ids``, without the prefix too where a single modality is a text. A name with two meanings, or one in
    ``reserved``, is none of them.
    """
    texts = [name for name, spec in modalities.items() if spec["encoder"] == "text"]
    meanings: dict[str, list[Place]] = {}
    for name in modalities:
        meanings.setdefault(name, []).append(Place(name))
        meanings.setdefault(f"{name}_mask", []).append(Place(name, "mask"))
    for name in texts:
        for part in TOKENIZED:
            meanings.setdefault(f"{name}_{part}", []).append(Place(name, part))
            if len(texts) == 1:
                meanings.setdefault(part, []).append(Place(name, part))
    taken = set(reserved)
    return {name: places[0] for name, places in meanings.items() if len(places) == 1 and name not in taken}


def nested(
    places: Mapping[str, Place],
    flat: Mapping[str, Any],
    inputs: Mapping[str, Any] | None,
    mask: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns ``inputs`` and ``mask`` with the flat arguments in their places; an argument that is ``None`` has none.

    Raises:
        TypeError: an unknown argument, or two that say the same.
    """
    joined, masks = dict(inputs or {}), dict(mask or {})
    texts: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        if name not in places:
            raise TypeError(_unknown(name, places))
        if value is None:
            continue
        modality, part = places[name]
        if part in TOKENIZED:
            _put(texts.setdefault(modality, {}), part, value, name)
        else:
            _put(masks if part == "mask" else joined, modality, value, name)
    for modality, parts in texts.items():
        _put(joined, modality, parts, next(name for name in flat if places[name] == (modality, next(iter(parts)))))
    return joined, masks


def _put(entries: dict[str, Any], key: str, value: Any, name: str) -> None:
    if entries.get(key) is not None:
        raise TypeError(f"{key!r} must be given once, but {name} gives it again")
    entries[key] = value


def _unknown(name: str, places: Mapping[str, Place]) -> str:
    nearest = get_close_matches(name, places, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; flat arguments are {list(places)}"
    return f"forward has no argument {name!r}{hint}"


def takes_flat_inputs(forward: Callable[..., Any]) -> Any:
    """Lets a model's ``forward(inputs, mask, ...)`` take flat arguments too, and ``return_dict``.

    The signature of ``model.forward``, by which Trainer tells which columns of a data set to keep, names the flat
    arguments of the model at hand.
    """
    own = tuple(inspect.signature(forward).parameters)[1:]

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
    @wraps(forward)
    def taking(self: Any, inputs: Any = None, mask: Any = None, *args: Any, **options: Any) -> Any:
        flat = {name: options.pop(name) for name in list(options) if name not in own}
        if flat:
            if inputs is not None:
                checks.by_modality("inputs", inputs, tuple(self.config.modalities))
            if mask is not None:
                checks.by_modality("mask", mask, tuple(self.config.modalities))
            inputs, mask = nested(flat_names(self.config.modalities, (*own, "return_dict")), flat, inputs, mask)
        return forward(self, inputs, mask, *args, **options)

    return _Forward(taking, own)


class _Forward:
    """A method whose signature depends on the model that it is called on."""

    def __init__(self, function: Callable[..., Any], own: tuple[str, ...]) -> None:
        self.function, self.own = function, own

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            return self.function
        if torch.compiler.is_compiling():  # which reads no signature, and knows no methods that are made here
            return partial(self.function, model)
        return _BoundForward(MethodType(self.function, model), self.own)


class _BoundForward:
    """A bound method with its own signature, which is computed only where it is asked for."""

    def __init__(self, method: MethodType, own: tuple[str, ...]) -> None:
        self.__func__, self.__self__, self._own = method.__func__, method.__self__, own

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.__func__(self.__self__, *args, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "__func__":  # of a copy that has no attributes yet
            raise AttributeError(name)
        return getattr(self.__func__, name)  # as methods do

    @property
    def __signature__(self) -> inspect.Signature:
        kinds = inspect.Parameter
        model: Any = self.__self__
        _, inputs, *own = inspect.signature(self.__func__).parameters.values()
        flat = (*flat_names(model.config.modalities, (*self._own, "return_dict")), "return_dict")
        return inspect.Signature(
            [inputs.replace(default=None), *own, *(kinds(name, kinds.KEYWORD_ONLY, default=None) for name in flat)]
        )
