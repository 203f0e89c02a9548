"""What a program takes: named tensors, the dimensions whose sizes are free, and an example of them."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from transformers import GenerationMixin

from multifuse.layers.hierarchy import SemanticHierarchyEncoder
from multifuse.layers.intra_ced import IntraCED
from multifuse.layers.stiefel import StiefelProjector
from multifuse.layers.token_budget import TokenBudget
from multifuse.models.modeling_base import CLCRPreTrainedModel

BATCH = "batch"
_EXAMPLE_BATCH = 3
_EXAMPLE_LENGTH = 7  # of the first modality; the others are longer, so that no two sizes are equal by chance
_IMAGE_SIZE = 224


@dataclass(frozen=True)
class Signature:
    """The inputs of a program, by name, and how they become the arguments of a module's ``forward``."""

    example: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]]
    """By input, its dimensions whose sizes are free, with the names of the sizes."""
    spec: Any
    """The structure of the arguments, whose leaves are the inputs in their order."""

    def arguments(self, inputs: Mapping[str, Tensor]) -> tuple[Any, ...]:
        arguments: tuple[Any, ...] = _pytree.tree_unflatten([inputs[name] for name in self.example], self.spec)
        return arguments

    def sizes(self) -> dict[str, int]:
        """Returns the free sizes of the example, by name."""
        return {
            size: self.example[name].shape[dim] for name, dims in self.dynamic.items() for dim, size in dims.items()
        }

    def drawn(self, sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
        """Returns inputs of other sizes, whose values are drawn from those of the example; masks pad at the end."""
        generator = torch.Generator().manual_seed(seed)
        drawn = {}
        for name, values in self.example.items():
            shape = list(values.shape)
            for dim, size in self.dynamic[name].items():
                shape[dim] = sizes[size]
            if values.dtype == torch.bool and len(shape) == 2:
                # The first sample is full, the second has nothing, so that it lacks the modality.
                lengths = torch.randint(1, shape[1] + 1, (shape[0], 1), generator=generator)
                lengths[:1], lengths[1:2] = shape[1], 0
                tensor = torch.arange(shape[1]) < lengths
            else:
                index = torch.randint(values.numel(), shape, generator=generator)
                tensor = values.detach().cpu().flatten()[index]
            drawn[name] = tensor.to(values.device)
        return drawn


def signature_of(
    model: nn.Module,
    example: Sequence[Any] | None,
    dynamic: Mapping[str, Mapping[int, str]] | None,
    sizes: Mapping[str, Sequence[int]],
) -> Signature:
    """Returns the signature of a module, from an example of its positional arguments or from what is known of it.

    Raises:
        ValueError: a module of which nothing is known without an example, an example without tensors or with other
            values, inputs of one name, an input that ``dynamic`` does not know.
    """
    _check_sizes(model, sizes, example is not None)
    arguments = tuple(_example_of(model, sizes) if example is None else example)
    leaves, spec = _pytree.tree_flatten(arguments)
    parameters = list(inspect.signature(model.forward).parameters)
    paths, _ = _pytree.tree_flatten_with_path(arguments)
    names = [_name(path, parameters) for path, _ in paths]
    for name, leaf in zip(names, leaves, strict=True):
        if not isinstance(leaf, Tensor) or not leaf.numel():
            shown = tuple(leaf.shape) if isinstance(leaf, Tensor) else repr(leaf)
            raise ValueError(f"example must hold tensors that are not empty, got {shown} at {name!r}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"example must have inputs with names that differ, got {names}")
    tensors = dict(zip(names, leaves, strict=True))
    if dynamic is None and isinstance(model, TokenBudget):
        dynamic = {name: {0: BATCH, 1: "tokens"} for name in names}
    free = _free(tensors) if dynamic is None else {name: dict(dims) for name, dims in dynamic.items()}
    unknown = [name for name in free if name not in tensors]
    if unknown:
        raise ValueError(f"dynamic has inputs {unknown}; the module has {names}")
    return Signature(tensors, {name: free.get(name, {}) for name in names}, spec)


def _name(path: Sequence[Any], parameters: Sequence[str]) -> str:
    """Names an input: that of a modality by the modality, its mask by ``.mask`` after that, others by their path."""
    keys = [str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", "")))) for entry in path]
    first = parameters[int(keys[0])] if int(keys[0]) < len(parameters) else parameters[-1]
    rest = keys[1:]
    if first in ("inputs", "tokens") and rest:
        return ".".join(rest)
    if first == "mask" and rest:
        return ".".join([*rest, "mask"])
    return ".".join([first, *rest])


def _free(tensors: Mapping[str, Tensor]) -> dict[str, dict[int, str]]:
    """Frees the batch of every tensor, and the length of sequences (B, T, d), of token ids and masks (B, T).

    A mask of (B, 1) is that of one sound or vector; of frames (B, F, C, H, W) the number is free.
    """
    free: dict[str, dict[int, str]] = {}
    for name, values in tensors.items():
        free[name] = {0: BATCH} if values.ndim else {}
        of_tokens = values.ndim in (3, 5) or (values.ndim == 2 and not values.is_floating_point())
        if of_tokens and values.shape[1] > 1:
            free[name][1] = f"{name.split('.')[0]}_length"
    return free


def _check_sizes(model: nn.Module, sizes: Mapping[str, Sequence[int]], has_example: bool) -> None:
    specs = model.config.modalities if isinstance(model, CLCRPreTrainedModel) and not has_example else {}
    allowed = [name for name, spec in specs.items() if spec["encoder"] in ("image", "audio")]
    for name in sizes:
        if name not in allowed:
            why = "with an example there are none" if has_example else f"they are {allowed}"
            raise ValueError(f"sizes must be of modalities with a backbone ({why}), got {name!r}")


def _example_of(model: nn.Module, sizes: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
    if isinstance(model, GenerationMixin):
        raise ValueError(
            f"a {type(model).__name__} cannot be exported, because it generates in a loop; export its clcr"
        )
    if isinstance(model, CLCRPreTrainedModel):
        return _model_example(model, sizes)
    weight = next(model.parameters(), torch.empty(0))
    if isinstance(model, TokenBudget):
        values = torch.rand(_EXAMPLE_BATCH, _EXAMPLE_LENGTH, dtype=weight.dtype, device=weight.device)
        return values, torch.ones_like(values, dtype=torch.bool)
    if isinstance(model, IntraCED | StiefelProjector):
        widths = model.widths if isinstance(model, IntraCED) else dict.fromkeys(model.modalities, model.dim)
        tokens = {
            name: torch.randn(_EXAMPLE_BATCH, length, widths[name], dtype=weight.dtype, device=weight.device)
            for name, length in _lengths(model.modalities).items()
        }
        return (tokens, _masks(tokens)) if isinstance(model, IntraCED) else (tokens,)
    raise ValueError(f"example must be given for a {type(model).__name__}: the positional arguments of a batch")


def _model_example(model: CLCRPreTrainedModel, sizes: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
    """Returns inputs and masks of a CLCR model, or of a baseline behind the same encoders."""
    has_hierarchy = any(isinstance(module, SemanticHierarchyEncoder) for module in model.modules())
    specs = {
        name: spec
        for name, spec in model.config.modalities.items()
        if has_hierarchy or spec["encoder"] == "text"  # the baseline of text reads nothing else
    }
    weight = next(model.parameters())
    longest = model.config.max_positions if model.config.positions == "learned" else None
    inputs = {
        name: _modality_example(name, specs[name], length, sizes.get(name), weight, model)
        for name, length in _lengths(specs, longest).items()
    }
    return inputs, _masks(inputs, {name for name, spec in specs.items() if spec["encoder"] == "audio"})


def _modality_example(
    name: str,
    spec: Mapping[str, Any],
    length: int,
    size: Sequence[int] | None,
    weight: Tensor,
    model: CLCRPreTrainedModel,
) -> Tensor:
    device, kind = weight.device, spec["encoder"]
    if kind == "temporal_conv":
        return torch.randn(_EXAMPLE_BATCH, length, spec["input_size"], dtype=weight.dtype, device=device)
    if kind == "text":
        embedding: Any = model.text_encoders()[name].model.get_input_embeddings()  # type: ignore[operator]
        return torch.randint(embedding.num_embeddings, (_EXAMPLE_BATCH, length), device=device)
    if kind == "image":
        side = spec["config"].get("image_size")
        side = side if isinstance(side, int) else _IMAGE_SIZE
        size = (spec["config"].get("num_channels", 3), side, side) if size is None else size
        return torch.randint(256, (_EXAMPLE_BATCH, 2, *size), dtype=torch.uint8, device=device)
    if size is None:
        raise ValueError(f"sizes must have the shape of one input of {name!r}, such as (1, 257, 200) of a spectrogram")
    return torch.randn(_EXAMPLE_BATCH, *size, device=device)


def _lengths(names: Sequence[str] | Mapping[str, Any], most: int | None = None) -> dict[str, int]:
    lengths = {name: _EXAMPLE_LENGTH + 4 * index for index, name in enumerate(names)}
    return (
        lengths
        if most is None
        else {name: min(length, max(most - index, 1)) for index, (name, length) in enumerate(lengths.items())}
    )


def _masks(inputs: Mapping[str, Tensor], single: set[str] | frozenset[str] = frozenset()) -> dict[str, Tensor]:
    """Returns masks of real tokens alone; modalities in ``single`` are one sound."""
    return {
        name: torch.ones(len(values), 1 if name in single else values.shape[1], dtype=torch.bool, device=values.device)
        for name, values in inputs.items()
    }
