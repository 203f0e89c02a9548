"""Argument checks of the public API: every message names the argument and shows the offending value."""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal.precision import has_autocast

_VALUES_SHOWN = 5


class Tokens(NamedTuple):
    """The checked tokens of one modality: ``values`` (B, T, d), 0 at padding; ``mask`` (B, T), ``None``: all real."""

    values: Tensor
    mask: Tensor | None


def positive_integer(name: str, value: object) -> int:
    """Returns an integer >= 1; those of numpy are accepted."""
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool | Tensor)
    if not is_integer or operator.index(value) < 1:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return operator.index(value)  # type: ignore[arg-type]


def is_number(value: object) -> bool:
    """Returns whether a value is a real number; those that a compiler lets change are not Python's."""
    return isinstance(value, (Real, torch.SymFloat, torch.SymInt))


def in_range(name: str, value: float, low: float, high: float) -> float:
    if not (is_number(value) and low <= value <= high):
        raise ValueError(f"{name} must be in [{low}, {high}], got {value!r}")
    return float(value)


def positive_number(name: str, value: float) -> float:
    # A compiler can compare a number that changes, but not ask whether it is finite.
    if not (is_number(value) and 0 < value < math.inf):
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return float(value)


def numbers(name: str, value: Sequence[float]) -> tuple[float, ...]:
    """Checks one or more finite numbers."""
    is_sequence = isinstance(value, Iterable) and not isinstance(value, str)
    if not is_sequence or not all(is_number(each) and math.isfinite(each) for each in value) or not tuple(value):
        raise ValueError(f"{name} must be a sequence of finite numbers, got {value!r}")
    return tuple(value)


def choice(name: str, value: object, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def grid(name: str, value: Sequence[int | None]) -> tuple[int | None, int | None]:
    """Checks (rows, columns), either of which may be ``None``."""
    is_pair = isinstance(value, Sequence) and len(value) == 2
    if not is_pair or not all(size is None or (type(size) is int and size >= 1) for size in value):
        raise ValueError(f"{name} must be (rows, columns), each an integer >= 1 or None, got {value!r}")
    rows, columns = value
    return rows, columns


def modality_names(modalities: Iterable[str]) -> tuple[str, ...]:
    """Checks the names of a module's modalities, whose order is the order of its weights."""
    if isinstance(modalities, str):
        raise ValueError(f"modalities must be a sequence of names, got the single string {modalities!r}")
    if not isinstance(modalities, Iterable):
        raise ValueError(f"modalities must be a sequence of names, got {modalities!r}")
    if isinstance(modalities, set | frozenset):
        # Weights are stored by position: with another order they would load into the wrong subspaces.
        raise ValueError(
            f"modalities must be ordered, such as a list or a tuple: a set's order differs between processes, "
            f"got {modalities!r}"
        )
    names = tuple(modalities)
    if not names:
        raise ValueError("modalities must name at least one modality, got none")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"modalities must be Python identifiers, got {name!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"modalities must be distinct, got {names}")
    return names


def subspace_ranks(dim: int, shared_rank: int, private_rank: int, width: str = "dim") -> None:
    """Checks ranks against the width of the tokens, whose argument is called ``width``."""
    positive_integer(width, dim)
    positive_integer("shared_rank", shared_rank)
    positive_integer("private_rank", private_rank)
    if shared_rank + private_rank > dim:
        ranks = f"{shared_rank} + {private_rank}"
        raise ValueError(f"shared_rank + private_rank must not exceed {width}, got {ranks} > {dim}")


def known_modalities(argument: str, names: Iterable[str], modalities: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in modalities]
    if unknown:
        raise ValueError(f"{argument} has modalities {unknown}; this module knows {list(modalities)}")


def by_modality(argument: str, values: object, modalities: tuple[str, ...]) -> None:
    """Checks that an argument is a mapping by modality of tensors, or of what else an encoder takes."""
    not_traced()
    if not isinstance(values, Mapping):
        example = ", ".join(f"{name!r}: ..." for name in modalities[:2])
        raise ValueError(f"{argument} must be a mapping by modality, such as {{{example}}}, got {_kind(values)}")
    known_modalities(argument, values, modalities)


def _kind(value: object) -> str:
    """Returns what to call a value of a wrong type."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    module = type(value).__module__.partition(".")[0]
    return type(value).__name__ if module in ("builtins", "multifuse") else f"{module}.{type(value).__name__}"


def not_traced() -> None:
    """Refuses `torch.jit.trace`, which would keep the sizes of its example: the result would be wrong at others."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise RuntimeError(
            "torch.jit.trace keeps the sizes of its example, so that the result is wrong at other sizes; "
            "use multifuse.export or torch.export.export"
        )


def tensor(argument: str, value: object) -> Tensor:
    not_traced()
    if not isinstance(value, Tensor):
        raise ValueError(f"{argument} must be a torch.Tensor, got {_kind(value)}")
    return value


def floating(argument: str, values: Tensor) -> None:
    if not values.is_floating_point():
        raise ValueError(f"{argument} must be floating point, got {values.dtype}")


def same_dtype(argument: str, values: Tensor, weight: Tensor) -> None:
    """Checks that inputs are floating point, and have the dtype of the weights, unless autocast converts them."""
    floating(argument, values)
    device = values.device.type
    autocast = has_autocast(device) and torch.is_autocast_enabled(device)
    converted = autocast and torch.float64 not in (values.dtype, weight.dtype)  # which autocast leaves alone
    if values.dtype != weight.dtype and not converted:
        raise ValueError(
            f"{argument} is {values.dtype}, but the weights are {weight.dtype}: convert one of them, or use autocast"
        )


def rates(argument: str, rate: float | Mapping[str, float], modalities: tuple[str, ...]) -> dict[str, float]:
    """Returns the rate of every modality: one rate for all, or a mapping by name, in which a missing name means 0."""
    if isinstance(rate, Mapping):
        known_modalities(argument, rate, modalities)
        named = {name: in_range(f"{argument}[{name!r}]", value, 0.0, 1.0) for name, value in rate.items()}
        return {**dict.fromkeys(modalities, 0.0), **named}
    return dict.fromkeys(modalities, in_range(argument, rate, 0.0, 1.0))


def bool_mask(argument: str, mask: Tensor) -> Tensor:
    """Returns a mask as bool; integers and floats are accepted where they are 0 (padding) and 1 (real token) only."""
    tensor(argument, mask)
    if mask.dtype == torch.bool:
        return mask
    if mask.is_complex():
        raise ValueError(f"{argument} must be bool, or numbers that are 0 and 1 only, got {mask.dtype}")
    real = mask == 1
    valid = real | (mask == 0)
    expected = f"{argument} must be bool, or numbers that are 0 and 1 only (True or 1 = real token)"
    if torch.compiler.is_compiling():
        torch._assert_async(valid.all(), expected)  # without the values: they are not known yet
    elif not _has_values(mask) or valid.all():
        return real
    else:
        values = mask[~valid].unique().tolist()
        shown = ", ".join(f"{value:g}" for value in values[:_VALUES_SHOWN]) + ", ..." * (len(values) > _VALUES_SHOWN)
        raise ValueError(f"{expected}, got {mask.dtype} with the values {shown}")
    return real


def _has_values(mask: Tensor) -> bool:
    """Returns whether a tensor is a plain one: not fake, on no device without values, not wrapped by a transform."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(mask)
    return type(mask) in (Tensor, torch.nn.Parameter) and not mask.is_meta and not wrapped


def can_look_at(tensor: Tensor) -> bool:
    """Returns whether values can be checked at no cost: on a CPU, outside of compilation and transforms."""
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return tensor.device.type == "cpu" and not transformed and _has_values(tensor)


def token_mask(argument: str, mask: Tensor, *shape: int) -> Tensor:
    """Returns the mask of tokens, of the given shape, as bool."""
    tensor(argument, mask)
    if mask.shape != shape:
        raise ValueError(f"{argument} must have shape {shape}, got {tuple(mask.shape)}")
    return bool_mask(argument, mask)


def modality_masks(mask: Mapping[str, Tensor | None] | None, modalities: tuple[str, ...]) -> dict[str, Tensor | None]:
    """Returns the masks by modality as bool."""
    mask = {} if mask is None else mask
    by_modality("mask", mask, modalities)
    return {name: None if real is None else bool_mask(f"mask[{name!r}]", real) for name, real in mask.items()}


def token_ids(argument: str, ids: Tensor, model: nn.Module) -> Tensor:
    """Checks the token ids (B, T) of a transformers model; their values only where that costs nothing."""
    if tensor(argument, ids).ndim != 2:
        raise ValueError(f"{argument} must have shape (batch, tokens), got {tuple(ids.shape)}")
    if ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{argument} must be int32 or int64, got {ids.dtype}")
    vocab_size = _vocab_size(model) if can_look_at(ids) else None
    if vocab_size is not None:
        outside = (ids < 0) | (ids >= vocab_size)
        if outside.any():
            sample, token = outside.nonzero()[0].tolist()
            raise ValueError(
                f"{argument} must be from 0 to {vocab_size - 1}, also at padding, because vocab_size is {vocab_size}, "
                f"got {int(ids[sample, token])} at sample {sample}, token {token}"
            )
    return ids


def _vocab_size(model: nn.Module) -> int | None:
    """Returns how many token ids a model knows; ``None`` if it does not have a table of them."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


def naming_modality(name: str, error: ValueError) -> ValueError:
    """Returns an error of an encoder with the name of its modality."""
    return ValueError(f"modality {name!r}: {error}")


def finite_tokens(argument: str, inputs: Mapping[str, object], mask: Mapping[str, Tensor | None]) -> None:
    """Checks that no real token of features (B, T, ...), frames or sounds holds NaN or infinity."""
    for name, values in inputs.items():
        if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim < 2:
            continue
        tokens = values.unsqueeze(1) if values.ndim == 2 else values  # a waveform (B, samples) is one sound
        wrong = ~tokens.isfinite().flatten(2).all(dim=-1)
        real = mask.get(name)
        if real is not None:
            wrong = wrong & token_mask(f"mask[{name!r}]", real, *wrong.shape)
        if wrong.any():
            sample, token = wrong.nonzero()[0].tolist()
            first = tokens[sample, token][~tokens[sample, token].isfinite()][0]
            raise ValueError(
                f"{argument}[{name!r}] must be finite at real tokens, has {float(first.detach())} "
                f"at sample {sample}, token {token}; {int(wrong.sum())} tokens in all"
            )


def finite_terms(terms: Mapping[str, Tensor]) -> None:
    """Checks that no term of a loss is NaN or infinite."""
    wrong = {name: float(value.detach()) for name, value in terms.items() if not value.detach().isfinite()}
    if wrong:
        raise ValueError(f"the terms of the loss must be finite, got {wrong}")


def levels(levels: object) -> None:
    """Checks that an argument is a sequence of the outputs of `IntraCED`."""
    expected = "levels must be a sequence with the IntraCEDOutput of every level"
    if not isinstance(levels, Sequence) or hasattr(levels, "shared_code"):
        raise ValueError(f"{expected}, got {_kind(levels)}")
    for index, level in enumerate(levels):
        if not hasattr(level, "shared_code"):
            raise ValueError(f"{expected}, got {_kind(level)} at index {index}")
        names, first = sorted(level.shared_code), sorted(levels[0].shared_code)
        if names != first:
            raise ValueError(f"levels[{index}] has modalities {names}, levels[0] {first}")


def token_shapes(
    argument: str,
    tokens: Mapping[str, Tensor | None],
    mask: Mapping[str, Tensor | None],
    modalities: tuple[str, ...],
    dim: int | Mapping[str, int],
) -> None:
    """Checks the names, shapes and dtypes of a batch of token tensors, and the shapes of their masks.

    ``dim`` is the width of all tokens, or that of each modality's.
    """
    by_modality(argument, tokens, modalities)
    batch: int | None = None
    for name in modalities:
        values = tokens.get(name)
        if values is None:
            continue
        tensor(f"{argument}[{name!r}]", values)
        width = dim[name] if isinstance(dim, Mapping) else dim
        if values.ndim != 3 or values.shape[-1] != width:
            shape = tuple(values.shape)
            raise ValueError(f"{argument}[{name!r}] must have shape (batch, tokens, {width}), got {shape}")
        floating(f"{argument}[{name!r}]", values)
        batch = values.shape[0] if batch is None else batch
        if values.shape[0] != batch:
            raise ValueError(f"{argument}[{name!r}] has batch size {values.shape[0]}, the modalities before it {batch}")
        real = mask.get(name)
        if real is not None:
            token_mask(f"mask[{name!r}]", real, batch, values.shape[1])
    if batch is None:
        raise ValueError(f"{argument} must hold at least one of the modalities {list(modalities)}, got none")


def token_mapping(
    tokens: Mapping[str, Tensor | None],
    mask: Mapping[str, Tensor | None] | None,
    modalities: tuple[str, ...],
    dim: int | Mapping[str, int],
) -> dict[str, Tokens]:
    """Checks a batch of token tensors and returns the modalities that are present, in the constructor's order."""
    masks = modality_masks(mask, modalities)
    token_shapes("tokens", tokens, masks, modalities, dim)
    present: dict[str, Tokens] = {}
    for name in modalities:
        values, real = tokens.get(name), masks.get(name)
        if values is not None:
            if real is not None:
                values = values.masked_fill(~real.unsqueeze(-1), 0.0)
            present[name] = Tokens(values, real)
    return present
