"""SemanticHierarchyEncoder: L feature sequences of one width for every modality."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multifuse._internal import checks, masks
from multifuse._internal.module_keys import module_key
from multifuse.layers.level import Level
from multifuse.layers.levels_together import group_key, levels_together


class SemanticHierarchyEncoder(nn.Module):
    """Computes ``H_l^m = LayerNorm(Z_l^m W_l^m + P_l^m)`` for every modality m and level l.

    ``Z_l^m`` comes from the encoder of the modality, ``W_l^m`` is a linear map to the common width, and ``P_l^m`` is a
    positional embedding.

    Args:
        dim: d, the common width.
        encoders: by modality, a module that maps ``(input, mask)`` to L sequences (B, T_m, width) and has the width as
            its attribute ``output_dim``, such as `TextLevels`, `TemporalConvLevels` or `BackboneLevels`. An encoder
            with ``masks_frames = True`` takes a mask (B, F), and gives the same number of tokens for each of F frames.
        num_levels: L.
        positions: ``"learned"``, for up to ``max_positions`` tokens, or ``"sinusoidal"``, for any number.
        max_positions: the largest number of tokens per modality, with learned positions.

    Shape:
        ``forward(inputs, mask=None)``: inputs by modality, each whatever its encoder takes; masks by modality -> list
        of L dicts of (B, T_m, d), 0 at padding. A modality may be left out, or be ``None``.

    Raises:
        ValueError: an unknown modality, an encoder without ``output_dim`` or with another number of levels, too many
            tokens for the learned positions.

    Source: CLCR (arXiv 2602.19605), semantic-hierarchy encoder.

    Example:
        >>> encoders = {"audio": TemporalConvLevels(5, 32, 2), "vision": TemporalConvLevels(20, 32, 2)}
        >>> hierarchy = SemanticHierarchyEncoder(64, encoders, num_levels=2)
        >>> levels = hierarchy({"audio": torch.randn(4, 30, 5), "vision": torch.randn(4, 50, 20)})
        >>> len(levels), levels[0]["vision"].shape
        (2, torch.Size([4, 50, 64]))
    """

    def __init__(
        self,
        dim: int,
        encoders: Mapping[str, nn.Module],
        num_levels: int = 3,
        *,
        positions: Literal["learned", "sinusoidal"] = "learned",
        max_positions: int = 1024,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = checks.positive_integer("dim", dim)
        self.num_levels = checks.positive_integer("num_levels", num_levels)
        if not isinstance(encoders, Mapping):
            raise ValueError(f"encoders must be a mapping by modality, got {type(encoders).__name__}")
        self.modalities = checks.modality_names(encoders)
        checks.choice("positions", positions, ("learned", "sinusoidal"))
        checks.positive_integer("max_positions", max_positions)
        self.positions, self.max_positions = positions, max_positions
        widths = {name: _output_dim(name, encoder) for name, encoder in encoders.items()}
        self.encoders = nn.ModuleDict({module_key(name): encoder for name, encoder in encoders.items()})
        self.levels = nn.ModuleDict(
            {
                module_key(name): nn.ModuleList(
                    Level(width, dim, positions, max_positions, device=device, dtype=dtype) for _ in range(num_levels)
                )
                for name, width in widths.items()
            }
        )

    def encoder(self, modality: str) -> nn.Module:
        """Returns the encoder of a modality."""
        checks.known_modalities("encoder", [modality], self.modalities)
        return self.encoders[module_key(modality)]

    def token_masks(
        self, levels: Sequence[Mapping[str, Tensor]], mask: Mapping[str, Tensor | None]
    ) -> dict[str, Tensor | None]:
        """Returns the masks of the tokens of the levels, where an encoder gives several tokens per frame."""
        tokens = levels[0]
        return {
            name: self._token_mask(name, real, tokens[name]) if name in tokens else real for name, real in mask.items()
        }

    def _token_mask(self, modality: str, mask: Tensor | None, tokens: Tensor) -> Tensor | None:
        if mask is None or not getattr(self.encoders[module_key(modality)], "masks_frames", False):
            return mask
        return masks.token_mask_of_frames(mask, tokens.shape[1])

    def _maps(self, modality: str) -> nn.ModuleList:
        """Returns the maps of a modality's levels."""
        maps = self.levels[module_key(modality)]
        assert isinstance(maps, nn.ModuleList)
        return maps

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, num_levels={self.num_levels}, positions={self.positions!r}, "
            f"max_positions={self.max_positions}"
        )

    def forward(
        self, inputs: Mapping[str, Any], mask: Mapping[str, Tensor | None] | None = None
    ) -> list[dict[str, Tensor]]:
        checks.by_modality("inputs", inputs, self.modalities)
        masks_given = checks.modality_masks(mask, self.modalities)
        given = {name: inputs[name] for name in self.modalities if inputs.get(name) is not None}
        levels: dict[str, Sequence[Tensor]] = {}
        for names in self._groups(given):
            if len(names) > 1:
                levels |= self._levels_of_group(names, given, masks_given)
            else:
                levels[names[0]] = self._levels(names[0], given[names[0]], masks_given.get(names[0]))
        return [{name: levels[name][index] for name in given} for index in range(self.num_levels)]

    def _groups(self, inputs: Mapping[str, Any]) -> list[list[str]]:
        """Groups the modalities that are computed together."""
        groups: dict[Hashable, list[str]] = {}
        for name, values in inputs.items():
            key = group_key(self.encoder(name), self._maps(name), values)
            groups.setdefault(name if key is None else key, []).append(name)
        return list(groups.values())

    def _levels_of_group(
        self, names: Sequence[str], inputs: Mapping[str, Any], mask: Mapping[str, Tensor | None]
    ) -> dict[str, Sequence[Tensor]]:
        encoders: Any = [self.encoder(name) for name in names]
        maps: Any = [self._maps(name) for name in names]
        values, masks = [], []
        for name, encoder in zip(names, encoders, strict=True):
            real = mask.get(name)
            try:
                values.append(_without_padding(inputs[name], real, _padding(real)))
                masks.append(encoder.checked_mask(values[-1], real))
            except ValueError as error:
                raise checks.naming_modality(name, error) from error
        return dict(zip(names, levels_together(encoders, maps, values, masks), strict=True))

    def _levels(self, name: str, inputs: Any, real: Tensor | None) -> list[Tensor]:
        """Returns the levels of one modality."""
        padding = _padding(real)
        try:
            sequences: Sequence[Tensor] = self.encoder(name)(_without_padding(inputs, real, padding), real)
        except ValueError as error:
            raise checks.naming_modality(name, error) from error
        if len(sequences) != self.num_levels:
            raise ValueError(f"encoders[{name!r}] must give {self.num_levels} levels, gave {len(sequences)}")
        lengths = [sequence.shape[1] for sequence in sequences]
        if any(length != lengths[0] for length in lengths):
            raise ValueError(f"encoders[{name!r}] must give levels of the same length, gave {lengths}")
        token_mask = self._token_mask(name, real, sequences[0])
        if token_mask is not real:
            padding = _padding(token_mask)
        return [level(sequence, padding) for level, sequence in zip(self._maps(name), sequences, strict=True)]


def _padding(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else ~mask.unsqueeze(-1)


def _without_padding(inputs: Any, mask: Tensor | None, padding: Tensor | None) -> Any:
    """Zeroes padded features, so that not even NaN there can spread; encoders mask ids and mappings themselves."""
    features = isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.ndim == 3
    if mask is None or padding is None or not features:
        return inputs
    checks.token_mask("mask", mask, *inputs.shape[:2])
    return inputs.masked_fill(padding, 0.0)


def _output_dim(name: str, encoder: nn.Module) -> int:
    width = getattr(encoder, "output_dim", None)
    if not isinstance(width, int):
        raise ValueError(f"encoders[{name!r}] must have its width as an integer attribute output_dim, has {width!r}")
    return width
