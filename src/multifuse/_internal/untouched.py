"""Whether modules still do what this library wrote: only then may their result be computed without calling them."""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_untouched(module: nn.Module, *types: type[nn.Module]) -> bool:
    """Tells whether a module is of one of these types, and nobody has hooked, compiled or patched it.

    Wrapped, parametrized and sharded modules are of other types. Hooks of all modules (a profiler's) count too.
    """
    return (
        type(module) in types
        and not any(getattr(module, hooks) for hooks in _HOOKS)
        and "forward" not in vars(module)
        and module._compiled_call_impl is None
        and not torch_module._has_any_global_hook()
    )


def is_plain(module: nn.Module, *types: type[nn.Module]) -> bool:
    """Tells whether a module and all modules inside it are untouched, and no parameter of theirs was replaced."""
    return all(is_untouched(part, *types) for part in module.modules()) and (
        torch.compiler.is_exporting() or all(map(is_whole, module.parameters()))
    )


def is_whole(weight: Tensor | None) -> TypeGuard[Tensor]:
    """Tells a plain weight from a missing, sharded or wrapped one; `torch.export` replaces all by others."""
    return type(weight) in (Tensor, nn.Parameter)
