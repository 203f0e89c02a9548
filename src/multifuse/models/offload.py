"""Lets a layer that reads the weights of its parts load them together where accelerate keeps them on the disk."""

from typing import Any

from torch import nn

from multifuse.layers.intra_ced import IntraCED

_PARTLY_CALLED = (IntraCED, nn.MultiheadAttention)
"""Layers that read weights of their parts without calling these."""


def load_parts_together(model: nn.Module) -> None:
    """Lets such layers of an offloaded model load the weights of all their parts before they run.

    accelerate loads the weights of a module when it is called.
    """
    if not hasattr(model, "hf_device_map"):  # not offloaded
        return
    from accelerate.hooks import ModelHook, add_hook_to_module

    class LoadParts(ModelHook):  # type: ignore[misc, unused-ignore]
        def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            for part, hook in _hooked_parts(module):
                hook.pre_forward(part)
            return args, kwargs

        def post_forward(self, module: nn.Module, output: Any) -> Any:
            for part, hook in _hooked_parts(module):
                hook.post_forward(part, None)
            return output

    for module in model.modules():
        if isinstance(module, _PARTLY_CALLED):
            add_hook_to_module(module, LoadParts(), append=True)


def _hooked_parts(module: nn.Module) -> list[tuple[nn.Module, Any]]:
    parts = (part for part in module.modules() if part is not module)
    return [(part, part._hf_hook) for part in parts if hasattr(part, "_hf_hook")]
