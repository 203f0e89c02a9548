"""How layers draw their own parameters, also inside somebody else's transformers model."""

import sys

import torch
from torch import Tensor, nn


class XavierLinear(nn.Linear):
    """A linear map whose weight starts Xavier-uniform, scaled by ``gain`` (0: zero), and whose bias starts at zero."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        gain: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.gain = gain
        super().__init__(in_features, out_features, bias, device, dtype)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight, gain=self.gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gain={self.gain}"


class DrawsOwnParameters(nn.Module):
    """A layer that draws its parameters, and those of the modules inside it, by their `reset_parameters` only.

    A transformers model initialises every module inside it by its own `_init_weights`, which cannot know this layer:
    parameters that a checkpoint lacks would keep uninitialised memory, and linear maps would get the host's
    distribution. Before it does so, transformers asks each module whether it ``_is_hf_initialized``, children first.
    This layer answers by drawing what the checkpoint did not hold.
    """

    @property
    def _is_hf_initialized(self) -> bool:
        if _transformers_initialises() and not self.__dict__.get("_drew_for_host", False):
            self.__dict__["_drew_for_host"] = True
            _draw(self)
        return True


def fill(parameter: Tensor, values: Tensor) -> None:
    """Copies values into a parameter, unless transformers has loaded it: as `torch.nn.init` when guarded."""
    if not is_loaded(parameter):
        with torch.no_grad():
            parameter.copy_(values)


def _transformers_initialises() -> bool:
    """Tells whether transformers is drawing weights: it then guards the functions of `torch.nn.init`.

    Guarded, they leave parameters alone that were loaded. Anywhere else, reading the property must change nothing.
    """
    guarded = sys.modules.get("transformers.initialization")
    return guarded is not None and nn.init.normal_ is getattr(guarded, "normal_", None)


def _draw(module: nn.Module) -> None:
    for child in module.children():
        if not isinstance(child, DrawsOwnParameters):  # those are asked themselves
            _draw(child)
    reset = getattr(module, "reset_parameters", None)
    # Weights behind a parametrization are parameters of a child.
    drawn = [*module.parameters(recurse=False)] or [*module.parameters()]
    if reset is not None and not all(map(is_loaded, drawn)):
        reset()


def is_loaded(parameter: Tensor) -> bool:
    """Tells whether transformers, while it draws what a checkpoint lacks, has loaded this parameter."""
    return _transformers_initialises() and bool(getattr(parameter, "_is_hf_initialized", False))
